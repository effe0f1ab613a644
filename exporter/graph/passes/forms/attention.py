"""Attention as torch's exporters write it out: how keys are turned, and the factor that scores are scaled by."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exporter.graph.passes.batch.sizes import Sizes
from exporter.graph.passes.forms.writing import constant, maker, numbers, put

_ULPS = 4  # a factor that was computed in float32 step by step is as far from the number that it means


def plain_key(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Turn the last two axes at once, where heads are flattened into the batch for it: (bh, n, d) -> (bh, d, n) between Reshapes."""
    turned = maker(node.inputs[0], "Transpose") if node.op_type == "Reshape" else None
    flat = maker(turned.inputs[0], "Reshape") if turned is not None else None
    if turned is None or flat is None or tuple(turned.attributes.get_ints("perm", ())) != (0, 2, 1):
        return False
    before, between, after = (sizes.shape(value) for value in (flat.inputs[0], flat.outputs[0], node.outputs[0]))
    if before is None or between is None or after is None or before[-2:] != between[-2:]:
        return False
    if after != (*before[:-2], before[-1], before[-2]):
        return False
    rank = len(before)
    put(node, "Transpose", [flat.inputs[0]], {"perm": [*range(rank - 2), rank - 1, rank - 2]}, graph)
    return True


def plain_scale(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Write 1/sqrt(d), or the root of it on both sides, as the nearest float32: the last bits depend on who computed it."""
    if node.op_type not in ("Mul", "Div"):
        return False
    for position in range(2):
        factor, other = numbers(node.inputs[position]), node.inputs[1 - position]
        if factor is None or factor.dtype != np.float32 or factor.size != 1 or other is None:
            continue
        meant = _meant(float(factor.reshape(())), _inner(node, other, sizes))
        if meant is None or meant == factor:
            return False
        exact = np.full(factor.shape, meant, np.float32)
        node.replace_input_with(position, constant(exact, f"{node.outputs[0].name}/scale", graph))
        return True
    return False


def _inner(node: ir.Node, other: ir.Value, sizes: Sizes) -> int | None:
    """Return the size of the axis that scores are summed over, where `node` scales them or a side of them."""
    product = maker(other, "MatMul")
    if product is None:
        readers = [use.node for use in node.outputs[0].uses()]
        alone = len(readers) == 1 and not node.outputs[0].is_graph_output()
        product = readers[0] if alone and readers[0].op_type == "MatMul" else None
    shape = sizes.shape(product.inputs[0]) if product is not None else None
    return shape[-1].offset if shape and shape[-1].is_constant else None


def _meant(factor: float, inner: int | None) -> np.float32 | None:
    """Return the float32 nearest to a power of `inner` that `factor` is but for rounding."""
    for power in (0.25, -0.25, 0.5, -0.5) if inner else ():
        exact = np.float32(float(inner or 1) ** power)
        if abs(factor - float(exact)) <= _ULPS * float(np.spacing(exact)):
            return exact
    return None
