"""Multiply-accumulates of control flow, for one row: the larger branch of an If, the body of a Loop or Scan as often as it runs.

How often a Loop runs counts where it is constant; else its body counts once, and the operator is named as uncounted.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping

import onnx
import onnx_ir as ir

from exporter.errors import UncountableShapes
from exporter.graph.flow.bodies import bodies_of, captured, has_bodies
from exporter.graph.foreign import CONTROL_FLOW, kind_of
from exporter.graph.macs import Macs, count_macs
from exporter.graph.shapes import Shapes, name_of

_Shapes = Mapping[str, tuple[int, ...]]


def macs_of_flow(model: ir.Model, shapes: Shapes) -> dict[ir.Node, Macs]:
    """Return the MACs of the nodes of the canonical `model` that are control flow. shapes: of its tensors, for one row."""
    found = {}
    for call in (node for node in model.graph if node.domain == CONTROL_FLOW):
        function = model.functions[call.op_identifier()]
        given = {
            name_of(inner): shape
            for inner, value in zip(function.inputs, call.inputs, strict=True)
            if (shape := _shape(value, shapes)) is not None
        }
        try:
            found[call] = _count(function.graph, given, _opsets(model))
        except UncountableShapes:
            found[call] = Macs(0, (kind_of(call.op_type),))
    return found


def _count(graph: ir.Graph, given: _Shapes, opsets: Mapping[str, int]) -> Macs:
    """Return the MACs of `graph`. given: the shapes of what it takes, also from outside."""
    shapes = ChainMap(_infer(graph, given, opsets), dict(given))
    inner = {node: _count_node(node, shapes, opsets) for node in graph if has_bodies(node)}
    return count_macs(graph, shapes, inner)


def _count_node(node: ir.Node, shapes: _Shapes, opsets: Mapping[str, int]) -> Macs:
    counted = [_count(body, {**shapes, **_given(node, body, shapes)}, opsets) for body in bodies_of(node)]
    uncounted = {name for macs in counted for name in macs.uncounted}
    runs = _runs(node, shapes)
    if runs is None:
        uncounted.add(node.op_type)
    return Macs(max(macs.total for macs in counted) * (1 if runs is None else runs), tuple(sorted(uncounted)))


def _runs(node: ir.Node, shapes: _Shapes) -> int | None:
    """Return how often a body of `node` runs, at most; None where that follows from what is computed."""
    if node.op_type == "If":
        return 1
    if node.op_type == "Loop" and node.inputs[0] is not None:
        count = ir.convenience.get_const_tensor(node.inputs[0])
        return max(int(count.numpy().reshape(-1)[0]), 0) if count is not None else None
    if node.op_type == "Scan":
        scanned = _scanned(node)
        axis = (node.attributes.get_ints("scan_input_axes") or [0])[0] if scanned else 0
        shape = shapes.get(name_of(scanned[0])) if scanned else None
        return shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None
    return None


def _scanned(node: ir.Node) -> list[ir.Value]:
    count = node.attributes.get_int("num_scan_inputs", 0) or 0
    return [value for value in node.inputs[len(node.inputs) - count :] if value is not None]


def _given(node: ir.Node, body: ir.Graph, shapes: _Shapes) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what `node` gives to its `body`: state keeps its shape, and of what is scanned an axis is gone."""
    found: dict[str, tuple[int, ...]] = {}
    values = dict(zip(body.inputs, node.inputs, strict=False))
    if node.op_type == "Loop":
        found = {name_of(value): () for value in body.inputs[:2]}
        values = dict(zip(body.inputs[2:], node.inputs[2:], strict=False))
    axes = node.attributes.get_ints("scan_input_axes") or [0] * len(_scanned(node))
    scanned = dict(zip(_scanned(node), axes, strict=False)) if node.op_type == "Scan" else {}
    for inner, value in values.items():
        shape = shapes.get(name_of(value)) if value is not None else None
        if shape is not None and value in scanned:
            axis = scanned[value] % len(shape)
            shape = shape[:axis] + shape[axis + 1 :]
        if shape is not None:
            found[name_of(inner)] = shape
    return found


def _infer(graph: ir.Graph, given: _Shapes, opsets: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what is computed in `graph`, as onnx infers them."""
    inner = [value for node in graph for value in (*node.inputs, *captured(node)) if value is not None]
    taken = dict.fromkeys([*graph.inputs, *(value for value in inner if value.graph is not graph)])
    infos = [
        onnx.helper.make_tensor_value_info(name_of(value), (value.dtype or ir.DataType.FLOAT).value, given[name_of(value)])
        for value in taken
        if name_of(value) in given
    ]
    outputs = [onnx.ValueInfoProto(name=name_of(value)) for value in graph.outputs]
    proto = onnx.helper.make_graph([ir.serde.serialize_node(node) for node in graph], "body", infos, outputs)
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    model = onnx.helper.make_model(proto, opset_imports=imports)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=False, strict_mode=False, data_prop=True).graph
    found = {}
    for info in (*inferred.value_info, *inferred.output):
        tensor = info.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            found[info.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return found


def _shape(value: ir.Value | None, shapes: Shapes) -> tuple[int, ...] | None:
    if value is not None and value.const_value is not None:
        return tuple(size for size in value.const_value.shape if isinstance(size, int))
    return shapes.get(name_of(value))


def _opsets(model: ir.Model) -> dict[str, int]:
    return {domain: version for domain, version in model.opset_imports.items() if domain != CONTROL_FLOW}
