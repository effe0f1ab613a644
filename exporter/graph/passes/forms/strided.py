"""What torch's new exporter writes for `as_strided`: numbers are gathered out of a flat tensor, often all of them, in order."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from exporter.graph.passes.batch.building import builder_before
from exporter.graph.passes.batch.sizes import Sizes
from exporter.graph.passes.batch.target import constant_target
from exporter.graph.passes.forms.writing import put


def gather_of_all(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Write a Gather of everything, in order, as the Reshape that it is."""
    if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
        return False
    flat, shape = node.inputs[0].producer() if node.inputs[0] else None, sizes.shape(node.outputs[0])
    if (
        flat is None
        or flat.op_type != "Reshape"
        or sizes.rank(flat.outputs[0]) != 1
        or shape is None
        or not sizes.depends_on_batch_alone(node.inputs[1])
    ):
        return False
    target = constant_target(sizes.shape(flat.inputs[0]), shape)
    if target is None or -1 not in target or not all(_is_all(*pair) for pair in sizes.evaluated(node.inputs[1], flat.outputs[0])):
        return False
    put(node, "Reshape", [flat.inputs[0], builder_before(node, graph, "all").integers(target)], {}, graph)
    return True


def _is_all(index: np.ndarray | None, shape: tuple[int, ...] | None) -> bool:
    return index is not None and shape is not None and np.array_equal(index.reshape(-1), np.arange(prod(shape)))
