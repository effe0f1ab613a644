"""Takes the batch size out of Expand, or Expand out of the graph."""

from __future__ import annotations

import onnx_ir as ir

from exporter.graph.passes.batch.building import builder_before
from exporter.graph.passes.batch.sizes import Size, Sizes

_ONE = Size(0, 1)
# Operators that broadcast all their inputs to the shape of the result.
_BROADCASTING = frozenset(("Add", "Sub", "Mul", "Div", "Where", "Max", "Min", "Equal", "Greater", "Less", "And", "Or"))


def static_expand(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Write 1, which keeps a dimension, where Expand would give it the size that it has; remove an Expand that changes nothing."""
    if node.op_type != "Expand":
        return False
    shape, target = sizes.shape(node.inputs[0]), sizes.content(node.inputs[1])
    if shape is None or target is None:
        return False
    own = _padded(shape, len(target))
    own = own[len(own) - len(target) :]
    wanted = [_ONE if size == before else size for size, before in zip(target, own, strict=True)]
    if len(target) <= len(shape) and all(size == _ONE for size in wanted):
        return _bypass(node)
    if not sizes.depends_on_batch_alone(node.inputs[1]) or not all(size.is_constant for size in wanted):
        return False
    node.replace_input_with(1, builder_before(node, graph, "shape").integers([size.offset for size in wanted]))
    return True


def drop_expand(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Feed an operator that broadcasts with what an Expand expands, where its other inputs have the shape of the result."""
    if node.op_type not in _BROADCASTING:
        return False
    dropped = [_drop(node, position, sizes) for position in range(len(node.inputs))]
    return any(dropped)


def _drop(node: ir.Node, position: int, sizes: Sizes) -> bool:
    expanded = node.inputs[position]
    producer = expanded.producer() if expanded is not None else None
    if producer is None or producer.op_type != "Expand" or not sizes.depends_on_batch_alone(producer.inputs[1]):
        return False
    own, wanted = sizes.shape(producer.inputs[0]), sizes.shape(expanded)
    others = [sizes.shape(value) for index, value in enumerate(node.inputs) if index != position]
    if own is None or wanted is None or not any(_covers(other, own, wanted) for other in others):
        return False
    node.replace_input_with(position, producer.inputs[0])
    return True


def _covers(other: tuple[Size, ...] | None, own: tuple[Size, ...], wanted: tuple[Size, ...]) -> bool:
    """Return whether broadcasting with a tensor of shape `other` expands `own` to `wanted`, or beyond."""
    if other is None or len(other) < len(wanted):
        return False
    expanded = zip(other[len(other) - len(wanted) :], _padded(own, len(wanted)), wanted, strict=True)
    return all(theirs == size for theirs, before, size in expanded if before != size)


def _padded(shape: tuple[Size, ...], rank: int) -> tuple[Size, ...]:
    """Return `shape` with ones in front, as broadcasting sees it."""
    return (_ONE,) * (rank - len(shape)) + shape


def _bypass(node: ir.Node) -> bool:
    output, source = node.outputs[0], node.inputs[0]
    if output.is_graph_output() or source is None:
        return False
    output.replace_all_uses_with(source)
    return True
