"""A repository in int8: the same tasks on the same segments, each quantised by ONNX Runtime's own tool, as its documentation advises.

Convolutional networks are quantised statically: weights per channel, activations by the range that calibration rows give them
(QuantizeLinear and DequantizeLinear around each operator, which ONNX Runtime turns into integer kernels). Networks with attention are
quantised dynamically: the weights of MatMul and Gemm per channel, activations by the range that they have in each run. Static ranges made
a ViT-S slower, and its answers worse. https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantFormat, QuantType, quant_pre_process, quantize_dynamic, quantize_static

from benchmarks.latency.precision.rewrite import Feed, rewritten
from contract.dtypes import Array
from contract.repository import Repository
from contract.system import processor_flags

_VNNI = ("avx512_vnni", "avx_vnni")


def quantised(repository: Repository, rows: Array, out: Path) -> Repository:
    """Write `repository` with weights in int8 to the folder `out`, and return it; inputs and outputs of segments stay as they are.

    rows: uint8 (n, height, width, 3), what the tasks take as their only input; to calibrate with.
    """
    how = _dynamic if _has_attention(repository) else _static

    def convert(model: ModelProto, feeds: Sequence[Feed]) -> ModelProto:
        del model.graph.value_info[:]  # of weights, too, which are transposed on the way
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
            quant_pre_process(model, source, skip_optimization=True, skip_symbolic_shape=True)
            how(source, target, feeds)
            return onnx.load(target)

    return rewritten(repository, rows, out, "int8", convert)


def reduces_range(flags: Collection[str], machine: str) -> bool:
    """Whether weights are to have 7 bits: x86 without VNNI adds products in pairs in 16 bits, which weights of 8 bits overflow.

    flags: of the processor. machine: "x86_64" or another architecture.
    """
    return machine in ("x86_64", "AMD64") and not any(flag in flags for flag in _VNNI)


def _has_attention(repository: Repository) -> bool:
    graphs = (onnx.load(repository.model_file(name), load_external_data=False).graph for name in repository.segments)
    return any(node.op_type == "Softmax" for graph in graphs for node in graph.node)


def _static(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    quantize_static(
        source,
        target,
        _Reader(iter(feeds)),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=reduces_range(processor_flags(), platform.machine()),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _dynamic(source: Path, target: Path, feeds: Sequence[Feed]) -> None:
    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul", "Gemm"],
        per_channel=True,
        reduce_range=reduces_range(processor_flags(), platform.machine()),
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )


@dataclass(frozen=True)
class _Reader:
    """What ONNX Runtime calls a CalibrationDataReader."""

    feeds: Iterator[Feed]

    def get_next(self) -> Feed | None:
        return next(self.feeds, None)
