"""Replaces arithmetic on shapes whose result is the same at every batch size by that result."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exporter.graph.passes.batch.building import builder_before
from exporter.graph.passes.batch.sizes import Size, Sizes


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
