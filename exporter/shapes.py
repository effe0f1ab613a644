"""Concrete shapes of all tensors of a model at a given batch size, by ONNX shape inference."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import common

Shapes = Mapping[str, tuple[int, ...]]


def infer_shapes(model: ir.Model, batch: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor whose shape is known when the input has `batch` rows. `model` is left as it is."""
    clone = model.clone()
    for value in clone.graph.inputs:
        value.shape = ir.Shape([batch, *(value.shape or ())[1:]])
    for node in clone.graph:
        for value in node.outputs:
            value.shape = None
    inferred = common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(clone).model
    values = [*inferred.graph.inputs, *inferred.graph.initializers.values()]
    values += [value for node in inferred.graph for value in node.outputs]
    return {name_of(value): shape for value in values if (shape := _concrete(value.shape)) is not None}


def shape_of(value: ir.Value | None, shapes: Shapes) -> tuple[int, ...]:
    """Return the shape of `value`. Raises KeyError with its name when it is not known."""
    return shapes[name_of(value)]


def name_of(value: ir.Value | None) -> str:
    """Return the name of `value`: every tensor of a model that was read or written has one."""
    return str(value.name) if value is not None else ""


def _concrete(shape: ir.Shape | None) -> tuple[int, ...] | None:
    if shape is None or not all(isinstance(dim, int) for dim in shape):
        return None
    return tuple(int(str(dim)) for dim in shape)
