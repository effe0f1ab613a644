"""Means over all places of an image."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.passes.batch.building import builder_before
from exporter.graph.passes.batch.sizes import Sizes
from exporter.graph.passes.forms.writing import put, whole

_REDUCTIONS = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2")


def plain_axes(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Count the axes of a reduction from the front, in order, where they are an input."""
    given = whole(node.inputs[1]) if node.op_type in _REDUCTIONS and len(node.inputs) > 1 else None
    shape = sizes.shape(node.inputs[0]) if given else None
    axes = sorted(axis % len(shape) for axis in given or ()) if shape else given
    if axes == given or axes is None:
        return False
    node.replace_input_with(1, builder_before(node, graph, "axes").integers(axes))
    return True


def global_pooling(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Write a mean over all spatial axes that stay as GlobalAveragePool, which ONNX Runtime runs in its own layout of images."""
    axes = whole(node.inputs[1]) if node.op_type == "ReduceMean" and len(node.inputs) > 1 else None
    shape = sizes.shape(node.inputs[0]) if axes else None
    if shape is None or len(shape) < 4 or axes != [*range(2, len(shape))] or not node.attributes.get_int("keepdims", 1):
        return False
    put(node, "GlobalAveragePool", [node.inputs[0]], {}, graph)
    return True
