"""Where and how trainings compute: device, precision and memory layout, chosen from what the machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from tuning.errors import BadOptions, UnusableDevice

Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Compute:
    """device: "cpu", "cuda:0", "mps". bfloat16: under autocast, weights stay float32. channels_last: layout of images and convolutions."""

    device: str
    bfloat16: bool = False
    channels_last: bool = True

    def place(self, network: nn.Module) -> nn.Module:
        """Move `network` in place to the device, convolution weights in the wanted layout; return it."""
        network.to(self.device)
        return network.to(memory_format=torch.channels_last) if self.channels_last else network

    def put(self, tensor: Tensor) -> Tensor:
        """Return a batch on the device, images and feature maps in the wanted layout."""
        moved = tensor.to(self.device, non_blocking=True)
        if self.channels_last and moved.ndim == 4 and moved.is_floating_point():
            return moved.contiguous(memory_format=torch.channels_last)
        return moved

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which forward passes run."""
        return torch.autocast(self.device.partition(":")[0], torch.bfloat16, enabled=self.bfloat16)


@contextmanager
def seeded(seed: int, compute: Compute) -> Iterator[None]:
    """Seed torch's global generators, which dropout uses, for a while."""
    with torch.random.fork_rng(devices=[compute.device] if compute.device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


def find_compute(device: str = "auto", precision: Precision = "auto") -> Compute:
    """Return what to compute with.

    device: "auto" takes the first GPU, otherwise the CPU. precision: "auto" is bfloat16 on GPUs that have it, float32 elsewhere: on a CPU
    without instructions for it (AVX512-BF16, AMX) bfloat16 is slower, so there it must be asked for.
    Channels-last is the layout that convolutions of CPUs and of tensor cores work in; on others it only costs copies. Raises BadOptions.
    """
    if precision not in get_args(Precision):
        raise BadOptions(f"precision must be one of {', '.join(get_args(Precision))}, not {precision!r}.")
    found = _find_device() if device == "auto" else device
    _check_device(found)
    kind = found.partition(":")[0]
    fast = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return Compute(found, precision == "bfloat16" or (precision == "auto" and fast), kind in ("cpu", "cuda"))


def _find_device() -> str:
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _check_device(device: str) -> None:
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        here = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "no GPU"
        raise UnusableDevice(device, here) from error
