"""Writes operators that came late with the earlier ones that exporters use for them below that opset, so that both are one network."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from exporter.graph.passes.batch.building import Builder, builder_before

_Size = int | ir.SymbolicDim | None
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)  # of others, GroupNormalization computes in float32
_CUBE = 0.044715  # of the approximation of Gelu by a tanh


class SpeltOut(ir.passes.InPlacePass):
    """Writes Gelu (opset 20) and GroupNormalization (21) as torch's exporter does in opset 18.

    onnx infers no shapes behind GroupNormalization, and ONNX Runtime runs it by its parts as well. Types must be known.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        gelus = [_spell_out_gelu(node, model.graph) for node in _all(model.graph, "Gelu")]
        group_norms = _spell_out_group_norms(model)
        return ir.passes.PassResult(model, modified=group_norms or any(gelus))


def _spell_out_group_norms(model: ir.Model) -> bool:
    """Spell out those that can be, and return whether there are any. What stands behind one gets its types and shapes anew."""
    changed = False
    while nodes := _all(model.graph, "GroupNormalization"):
        if not any([_spell_out_group_norm(node, model.graph) for node in nodes]):  # noqa: C419 (all of them, not the first)
            break
        changed = True
        if any(value.dtype is None for node in model.graph for value in node.outputs):
            common.ShapeInferencePass(check_type=False, strict_mode=False)(model)
    return changed


def _all(graph: ir.Graph, operator: str) -> list[ir.Node]:
    return [node for node in graph if node.op_type == operator and node.domain in ("", "ai.onnx")]


def _spell_out_gelu(node: ir.Node, graph: ir.Graph) -> bool:
    x = node.inputs[0]
    if x is None or x.dtype is None:
        return False
    write = _Writer(node, graph, x)
    if node.attributes.get_string("approximate", "none") == "tanh":
        cubed = write.node("Mul", [write.number(_CUBE), write.node("Pow", [x, write.number(3)])])
        inner = write.node("Tanh", [write.node("Mul", [write.number(sqrt(2 / pi)), write.node("Add", [x, cubed])])])
    else:
        inner = write.node("Erf", [write.node("Div", [x, write.number(sqrt(2))])])
    half = write.node("Mul", [write.number(0.5), write.node("Add", [inner, write.number(1)])])
    return write.instead("Mul", [x, half])


def _spell_out_group_norm(node: ir.Node, graph: ir.Graph) -> bool:
    x, *factors = node.inputs
    groups, epsilon = node.attributes.get_int("num_groups"), node.attributes.get_float("epsilon", 1e-5)
    constants = [value.const_value for value in factors if value is not None and value.const_value is not None]
    if x is None or x.shape is None or x.dtype not in _FLOATS or not groups or len(constants) < 2:
        return False
    channels = x.shape[1]
    if any(tensor.size != channels for tensor in constants):
        return False
    write = _Writer(node, graph, x)
    split = write.node("Reshape", [x, write.build.integers([0, groups, -1])], [x.shape[0], groups, None])
    ones, zeros = (write.constant(np.full(groups, value)) for value in (1, 0))
    even = write.node("InstanceNormalization", [split, ones, zeros], [x.shape[0], groups, None], epsilon=epsilon)
    joined = write.node("Reshape", [even, write.build.node("Shape", [x])])
    per_channel = [constants[0].size, *[1] * (len(x.shape) - 2)]
    scale, bias = (write.constant(tensor.numpy().reshape(per_channel)) for tensor in constants)
    return write.instead("Add", [write.node("Mul", [joined, scale]), bias])


class _Writer:
    """Writes nodes in front of `node`, whose outputs are like `x` where nothing else is said."""

    def __init__(self, node: ir.Node, graph: ir.Graph, x: ir.Value) -> None:
        self.build: Builder = builder_before(node, graph, "spelt_out")
        self._node, self._graph, self._x = node, graph, x

    def node(self, operator: str, inputs: list[ir.Value], shape: list[_Size] | None = None, **attributes: float) -> ir.Value:
        made = self.build.node(operator, inputs, attributes, self._x.dtype)
        made.shape = ir.Shape(shape) if shape is not None else self._x.shape
        producer = made.producer()
        if producer is not None:
            producer.metadata_props.update(self._node.metadata_props)
        return made

    def number(self, value: float) -> ir.Value:
        return self.constant(np.array(value))

    def constant(self, values: np.ndarray) -> ir.Value:
        return self.build.constant(values.astype(self._x.dtype.numpy()) if self._x.dtype is not None else values)

    def instead(self, operator: str, inputs: list[ir.Value]) -> bool:
        """Write the last node, which takes the place of the one that is spelt out, and its output's name."""
        old, new = self._node.outputs[0], self.node(operator, inputs)
        ir.convenience.replace_nodes_and_values(self._graph, self._node, [self._node], [], [old], [new])
        new.type, new.shape = self._x.type, self._x.shape  # the old one's may be unknown
        return True
