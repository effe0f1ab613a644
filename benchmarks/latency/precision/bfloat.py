"""A repository in bf16: weights and everything between the inputs and outputs of a segment, which stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper, version_converter

from benchmarks.latency.precision.rewrite import Feed, rewritten
from contract.dtypes import Array
from contract.repository import Repository

_OPSET = 22  # the first in which convolutions may be in bf16
_BF16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)


def in_bf16(repository: Repository, rows: Array, out: Path) -> Repository:
    """Write `repository` in bf16 to the folder `out`, and return it. Whether a provider can open it is another question."""

    def convert(model: ModelProto, feeds: Sequence[Feed]) -> ModelProto:
        return to_bf16(model)

    return rewritten(repository, rows, out, "bf16", convert)


def to_bf16(model: ModelProto) -> ModelProto:
    """Return `model` in bf16; its inputs and outputs in fp32 stay so, and are converted inside."""
    model = version_converter.convert_version(model, _OPSET)
    graph = model.graph
    del graph.value_info[:]
    for weight in graph.initializer:
        _round(weight)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _round(attribute.t)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.BFLOAT16
    _convert_ends(graph)
    return model


def _round(tensor: TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(_BF16), tensor.name))


def _convert_ends(graph: GraphProto) -> None:
    """Put a Cast behind each fp32 input and in front of each fp32 output, so that only the names inside change."""
    inputs = {value.name: f"{value.name}/bf16" for value in graph.input if _is_float(value)}
    outputs = {value.name: f"{value.name}/bf16" for value in graph.output if _is_float(value)}
    inside = {**inputs, **outputs}
    for node in graph.node:
        node.input[:] = [inside.get(name, name) for name in node.input]
        node.output[:] = [inside.get(name, name) for name in node.output]
    first = [helper.make_node("Cast", [name], [new], to=TensorProto.BFLOAT16) for name, new in inputs.items()]
    last = [helper.make_node("Cast", [new], [name], to=TensorProto.FLOAT) for name, new in outputs.items()]
    nodes = [*first, *graph.node, *last]
    del graph.node[:]
    graph.node.extend(nodes)


def _is_float(value: ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == TensorProto.FLOAT)
