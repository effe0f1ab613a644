"""In which numbers segments compute, by their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import onnx

from contract.repository import Repository

_INTEGER = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger")
_FLOATS = {onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.BFLOAT16: "bf16", onnx.TensorProto.DOUBLE: "fp64"}
FP32, INT8 = "fp32", "int8"


def segment_precision(model: Path) -> str:
    """Return the numbers in which an ONNX file computes: int8 where some operator does, else those of most of its weights."""
    graph = onnx.load(model, load_external_data=False).graph
    if any(node.op_type in _INTEGER or node.op_type.startswith("QLinear") for node in graph.node):
        return INT8
    kinds: Counter[str] = Counter()
    for tensor in graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, *_FLOATS):
            kinds[_FLOATS.get(tensor.data_type, FP32)] += _elements(tensor.dims)
    return kinds.most_common(1)[0][0] if kinds else FP32


def describe_precisions(repository: Repository) -> str:
    """Return a sentence that says how many segments of `repository` compute in which numbers."""
    found = Counter(segment_precision(repository.model_file(name)) for name in repository.segments)
    return f"Segments: {', '.join(f'{count:,} in {name}' for name, count in found.most_common())}."


def _elements(sizes: Iterable[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count
