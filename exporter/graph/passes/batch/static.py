"""Says with constants what needs no batch size: arithmetic on shapes that gives the same at each, and targets of Reshape."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exporter.graph.passes.batch.building import builder_before
from exporter.graph.passes.batch.sizes import Size, Sizes
from exporter.graph.passes.batch.target import constant_target


def static_reshape(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Replace the computed target of a Reshape by a constant one; return whether that was possible."""
    if node.op_type != "Reshape" or not sizes.depends_on_batch_alone(node.inputs[1]):
        return False
    target = _target(node, sizes)
    if target is None:
        return False
    node.replace_input_with(1, builder_before(node, graph, "shape").integers(target))
    if 0 in target:  # which keeps a size, and makes none of zero
        node.attributes.pop("allowzero", None)
    return True


def _target(node: ir.Node, sizes: Sizes) -> list[int] | None:
    """Return the result's shape as `constant_target` says it."""
    content = sizes.content(node.inputs[1])
    said = content and all(size.at or size.slope or size.offset > 0 for size in content)
    return constant_target(sizes.shape(node.inputs[0]), content if said else sizes.shape(node.outputs[0]))


def fold_constant_size(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Replace the output of `node` by a constant, if it depends on shapes alone and not on the batch size."""
    output = node.outputs[0]
    content = sizes.content(output)
    if len(node.outputs) != 1 or content is None or not output.uses() or not sizes.depends_on_batch_alone(output):
        return False
    numbers, shape = _constant(content), _constant(sizes.shape(output))
    if output.dtype != ir.DataType.INT64 or numbers is None or shape is None:
        return False
    constant = builder_before(node, graph, "folded").integers(np.reshape(numbers, shape))
    output.replace_all_uses_with(constant)
    return True


def _constant(sizes: tuple[Size, ...] | None) -> list[int] | None:
    """Return `sizes` as numbers; None if one depends on the batch size."""
    return [size.offset for size in sizes] if sizes is not None and all(size.is_constant for size in sizes) else None
