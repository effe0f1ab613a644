"""Takes the batch size out of Reshape: where only one dimension of the result depends on it, -1 says the same."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.passes.batch.building import builder_before
from exporter.graph.passes.batch.sizes import Sizes


def static_reshape(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Replace the computed target of a Reshape by a constant one; return whether that was possible."""
    if node.op_type != "Reshape" or not sizes.depends_on_batch_alone(node.inputs[1]):
        return False
    target = _target(node, sizes)
    if target is None:
        return False
    node.replace_input_with(1, builder_before(node, graph, "shape").integers(target))
    return True


def _target(node: ir.Node, sizes: Sizes) -> list[int] | None:
    """Return the result's shape with -1 for its one varying dimension; None if there are several, or an empty one."""
    content = sizes.content(node.inputs[1])
    shape = content if content and all(size.slope or size.offset > 0 for size in content) else sizes.shape(node.outputs[0])
    if shape is None:
        return None
    target = [size.offset if size.is_constant else -1 for size in shape]
    return target if target.count(-1) <= 1 and 0 not in target else None
