"""What a measurement was made on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from contract.system import available_cores, machine_cores, machine_memory_bytes, processor_fact, processor_flags

_PACKAGES = (
    "espalier",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "numpy",
    "onnx",
    "torch",
    "timm",
    "uvicorn",
    "grpcio",
    "tritonclient",
    "mlcommons-loadgen",
)
_VECTORS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")


def describe_machine() -> str:
    """Return the processor, the cores that this process may use, and the version of Python, in a line."""
    return f"{_processor()}, {available_cores()} cores, Python {platform.python_version()}"


def machine_facts() -> dict[str, Any]:
    """Return the hardware and the system under short names.

    cores, memory_bytes: that this process may use, 0 bytes where nobody says. machine_cores: of the machine. gpus: NVIDIA's, by their
    driver; only `merge` uses them, with torch.
    """
    flags = processor_flags()
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "machine_cores": machine_cores(),
        "vector_instructions": [name for name in _VECTORS if name in flags],
        "memory_bytes": machine_memory_bytes(),
        "gpus": _gpus(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the versions of what is measured, as far as it is installed."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def source_commit() -> str:
    """Return the commit of the checkout that this runs from, with "+" when files were changed since; "" outside of one."""
    if not _git("ls-files", Path(__file__).name):  # installed in an environment that lies in somebody's own repository
        return ""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if commit and changes else commit


def _git(*arguments: str) -> str:
    folder = Path(__file__).parent
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _gpus() -> list[str]:
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = [line for file in files for line in file.read_text().splitlines() if line.startswith("Model:")]
    return [line.partition(":")[2].strip() for line in lines]


def _processor() -> str:
    return processor_fact("model name") or platform.processor() or platform.machine()
