"""What in a part of a network is a weight, as tasks tune them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx_ir as ir

from exporter.graph.macs import is_product

# Operators whose further inputs are no weights: scales and sizes.
_PARAMETERS = frozenset(("DequantizeLinear", "Resize", "Upsample", "Pad", "Expand"))


def has_weights(nodes: Iterable[ir.Node]) -> bool:
    """Whether a task may have tuned a part of these nodes: it holds fractions, or numbers of any kind that a product takes.

    What says how large a result is, or by which scale a DequantizeLinear takes a tensor, is none; what that makes a weight of is.
    Classical models keep theirs in attributes.
    """
    return any(
        any(_is_weight(value, node, position) for position, value in enumerate(node.inputs))
        or (node.domain == "ai.onnx.ml" and any(item.type == ir.AttributeType.FLOATS for item in node.attributes.values()))
        for node in nodes
    )


def _is_weight(value: ir.Value | None, node: ir.Node, position: int) -> bool:
    if value is None or not value.is_initializer():
        return False
    if node.op_type in _PARAMETERS:
        return position == 0
    return (value.dtype is not None and value.dtype.is_floating_point()) or is_product(node)


def matrices_of(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, list[ir.Value]]]:
    """Yield those of `nodes` that take weights of two axes and more, each with these."""
    found = ((node, [value for value in node.inputs if value is not None and is_matrix(value)]) for node in nodes)
    return ((node, values) for node, values in found if values)


def weights_of(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    """Return what `nodes` take that is a constant, each once."""
    used = dict.fromkeys(value for node in nodes for value in node.inputs if value is not None and value.is_initializer())
    return list(used)


def dtype_of(value: ir.Value) -> ir.DataType:
    """Return the type of `value`, UNDEFINED where it has none."""
    return value.dtype if value.dtype is not None else ir.DataType.UNDEFINED


def is_matrix(value: ir.Value) -> bool:
    """Whether `value` holds fractions and has two axes and more that are longer than one."""
    tensor = value.const_value
    return tensor is not None and tensor.dtype.is_floating_point() and sum(int(str(size)) > 1 for size in tensor.shape) > 1
