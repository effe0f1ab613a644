"""Which of ONNX Runtime's execution providers the sessions use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime as ort

from serving.engines.device_tensors import Device
from serving.errors import ProviderUnavailable

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
# Each falls back to those after it, operator by operator.
_CHAINS = {
    "cpu": (CPU,),
    "cuda": (CUDA, CPU),
    "tensorrt": (TENSORRT, CUDA, CPU),
    "openvino": ("OpenVINOExecutionProvider", CPU),
}
PROVIDER_CHOICES = ("auto", *_CHAINS)
# TensorRT compiles each segment for minutes, and OpenVINO computes with other rounding: neither without being asked for.
_AUTOMATIC = ("cuda", "cpu")
_NEED_GPU = ("cuda", "tensorrt")
_GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/nvidia0"), Path("/dev/dxg"))
# y = x for one float: the smallest model that a provider can be asked to open (ONNX IR 8, opset 13).
_IDENTITY = (
    b'\x08\x08\x12\x00:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01g'
    b"Z\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


def choose_providers(choice: str, works: Callable[[str], bool] | None = None) -> tuple[str, ...]:
    """Return ONNX Runtime's names of the providers for `choice`, one of PROVIDER_CHOICES, the first preferred.

    "auto" is the GPU where CUDA really works, else the CPU, silently. works(choice) says whether one works here (default: try it).
    Raises ProviderUnavailable for one that was asked for and does not.
    """
    works = works or provider_works
    if choice == "auto":
        return _CHAINS[next(name for name in _AUTOMATIC if name == "cpu" or works(name))]
    if choice not in _CHAINS or (choice != "cpu" and not works(choice)):
        raise ProviderUnavailable(
            choice, ("auto", *(name for name in _CHAINS if name == "cpu" or (name != choice and works(name))))
        )
    return _CHAINS[choice]


def provider_works(choice: str) -> bool:
    """Say whether a session really gets the provider: a build for GPUs lists CUDA on machines without one, too."""
    wanted = _CHAINS[choice][0]
    if wanted not in ort.get_available_providers():
        return False
    if choice in _NEED_GPU:
        if not any(device.exists() for device in _GPU_DEVICES):
            return False  # asked before trying, because ONNX Runtime complains on stderr when it fails to load CUDA
        _load_cuda()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(_IDENTITY, options, providers=[wanted], enable_fallback=0)
    except Exception:  # ONNX Runtime's exceptions have no common base
        return False
    return wanted in session.get_providers()


def device_of(providers: Sequence[str]) -> Device | None:
    """Return the device on which features can stay between sessions of `providers`; None: the host, where there is nothing to save.

    It is the first GPU that this process sees; CUDA_VISIBLE_DEVICES says which that is.
    """
    return Device("cuda") if CUDA in providers else None


def _load_cuda() -> None:
    """Load CUDA's libraries from the nvidia-* packages beside ONNX Runtime's, where it does not look by itself."""
    preload = getattr(ort, "preload_dlls", None)  # since 1.21
    if preload is not None:
        preload()
