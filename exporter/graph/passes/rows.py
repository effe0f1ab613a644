"""Gives inputs and outputs with one number per row an axis of their own."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

_AXES_AS_INPUT = 13  # the opset from which Squeeze and Unsqueeze take them so; before, they are an attribute


class RowsAsVectors(ir.passes.InPlacePass):
    """Makes (batch,) into (batch, 1) at the network's ends: a model repository has no tensors without dimensions beside the batch."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite in place."""
        inputs = [value for value in model.graph.inputs if _is_flat(value) and value.uses()]
        outputs = [index for index, value in enumerate(model.graph.outputs) if _is_flat(value)]
        if not inputs and not outputs:
            return ir.passes.PassResult(model, modified=False)
        axes = _axes(model)
        for value in inputs:
            _squeeze(model.graph, value, axes)
        for index in outputs:
            _unsqueeze(model.graph, index, axes)
        return ir.passes.PassResult(model, modified=True)


def _axes(model: ir.Model) -> ir.Value | None:
    """Return the constant that says which axis it is, new in the graph of `model`; None where an attribute says it."""
    if model.opset_imports.get("", _AXES_AS_INPUT) < _AXES_AS_INPUT:
        return None
    axes = ir.Value(name="espalier_last_axis", const_value=ir.tensor(np.array([1], np.int64)))
    axes.shape, axes.type = ir.Shape([1]), ir.TensorType(ir.DataType.INT64)
    model.graph.register_initializer(axes)
    return axes


def _node(operator: str, value: ir.Value, axes: ir.Value | None) -> ir.Node:
    return ir.node(operator, [value, axes]) if axes is not None else ir.node(operator, [value], attributes={"axes": [1]})


def _is_flat(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) == 1


def _squeeze(graph: ir.Graph, value: ir.Value, axes: ir.Value | None) -> None:
    node = _node("Squeeze", value, axes)
    (flat,) = node.outputs
    flat.name, flat.shape, flat.type = f"{value.name}_flat", value.shape, value.type
    value.replace_all_uses_with(flat)
    node.replace_input_with(0, value)
    value.shape = ir.Shape([*(value.shape or ()), 1])
    graph.insert_before(graph[0], node)


def _unsqueeze(graph: ir.Graph, index: int, axes: ir.Value | None) -> None:
    value = graph.outputs[index]
    node = _node("Unsqueeze", value, axes)
    (rows,) = node.outputs
    # The new output takes the name: it is what people know it by.
    rows.name, value.name = value.name, f"{value.name}_flat"
    rows.shape, rows.type = ir.Shape([*(value.shape or ()), 1]), value.type
    graph.append(node)
    graph.outputs[index] = rows
