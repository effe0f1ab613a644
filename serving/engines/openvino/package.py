"""The package `openvino`, an extra: whether it is there, and what this processor can do with it."""

from __future__ import annotations

from functools import cache
from typing import Any

from contract.errors import ExtraNeeded
from serving.engines.sessions.runtime import Precision
from serving.errors import PrecisionUnavailable

_TYPES = {Precision.fp32: "f32", Precision.bf16: "bf16"}


def openvino() -> Any:
    """Return the package. Raises ExtraNeeded."""
    try:
        import openvino as package
    except ImportError as error:
        raise ExtraNeeded("Segments on OpenVINO", "openvino", "openvino") from error
    return package


@cache
def core() -> Any:
    """Return OpenVINO's core, one for this process. Raises ExtraNeeded."""
    return openvino().Core()


def version() -> str:
    """Return OpenVINO's version, without its build."""
    return str(openvino().__version__).partition("-")[0]


def has_bf16() -> bool:
    """Return whether this processor multiplies numbers of bfloat16 (AVX512_BF16, AMX): elsewhere they would be slower than floats."""
    return "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def chosen_precision(asked: Precision) -> Precision:
    """Return fp32 or bf16 for what was `asked`; "auto" is bf16 where the processor has it. Raises PrecisionUnavailable, ExtraNeeded."""
    if asked is Precision.auto:
        return Precision.bf16 if has_bf16() else Precision.fp32
    if asked is Precision.bf16 and not has_bf16():
        raise PrecisionUnavailable(asked)
    return asked


def properties(precision: Precision, threads: int, streams: int) -> dict[str, object]:
    """Return how a segment is compiled. threads: of a run. streams: runs at a time.

    The precision is said always: OpenVINO takes bf16 by itself where the processor has it, and int8 for what multiplies few-bit weights.
    Threads are not tied to cores: those of all segments would be tied to the same ones.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads * streams,
        "INFERENCE_PRECISION_HINT": _TYPES[precision],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "ENABLE_CPU_PINNING": False,
    }
