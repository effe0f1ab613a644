"""Which whole numbers a network can be given: those that are places in a table, as the ids of words are."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

_SAME_NUMBERS = frozenset(("Cast", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity", "Transpose", "Expand"))


def value_ranges(graph: ir.Graph) -> dict[str, tuple[int, int]]:
    """Return the least and the largest number that each integer input of `graph` may have, by its name, where it indexes tables."""
    sizes = {str(value.name): [*_tables(value)] for value in graph.inputs if value.dtype is not None and value.dtype.is_integer()}
    return {name: (0, min(rows) - 1) for name, rows in sizes.items() if rows}


def _tables(value: ir.Value) -> Iterator[int]:
    """Yield the sizes of the tables of constants that `value` indexes as it is."""
    for use in value.uses():
        node = use.node
        if node.op_type == "Gather" and use.idx == 1:
            yield from _rows(node.inputs[0], node.attributes.get_int("axis", 0) or 0)
        elif node.op_type in _SAME_NUMBERS and use.idx == 0 and (node.op_type != "Cast" or _is_whole(node)):
            yield from _tables(node.outputs[0])


def _rows(table: ir.Value | None, axis: int) -> Iterator[int]:
    maker = table.producer() if table is not None else None
    if maker is not None and maker.op_type in ("DequantizeLinear", "Cast"):
        table = maker.inputs[0]
    if table is not None and table.const_value is not None:
        yield int(table.const_value.shape.numpy()[axis])


def _is_whole(cast: ir.Node) -> bool:
    return ir.DataType(cast.attributes.get_int("to", 0) or 0).is_integer()
