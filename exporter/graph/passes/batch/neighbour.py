"""Recomputes what depends on the batch size alone from a neighbour: another input of the node that uses it.

A class token is expanded to the batch size and put in front of the patches; the batch size that it needs is that of the patches. So the
nodes that lead from the batch size to the token are copied, with the patches' shape in place of the image's. So it is with free sizes:
the positions of a text are as many as the tokens that they are added to.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from exporter.graph.passes.batch.beside import Beside
from exporter.graph.passes.batch.building import Builder, builder_before
from exporter.graph.passes.batch.sizes import Size, Sizes


@dataclass(frozen=True)
class _Neighbour:
    """A value of which the dimension `axis` is `factor` times the batch size."""

    value: ir.Value
    axis: int
    factor: int


class _NotThere(Exception):
    """A size that the neighbours do not tell."""


def use_neighbour(node: ir.Node, sizes: Sizes, graph: ir.Graph) -> bool:
    """Replace the inputs of `node` that depend on sizes alone, if its other inputs have these on their axes."""
    if not any(sizes.depends_on_data(value) for value in node.inputs) or node.op_type in ("Shape", "Size"):
        return False
    wanted = [index for index, value in enumerate(node.inputs) if _is_to_write(value, node, sizes)]
    copier = _Copier(node, sizes, builder_before(node, graph, "batch")) if wanted else None
    changed = False
    for index in wanted if copier is not None and copier.has_neighbours else ():
        value = node.inputs[index]
        if value is not None and copier is not None:
            try:
                node.replace_input_with(index, copier.copy(value))
                changed = True
            except _NotThere:  # it stays as it is
                continue
    return changed


def _is_to_write(value: ir.Value | None, node: ir.Node, sizes: Sizes) -> bool:
    """Return whether `value` depends on the batch size alone, in a known way, and is not yet written as `_Copier` would.

    What takes it from an input of `node` already is written anew, too: equal sizes give equal nodes, however they were computed.
    """
    if value is None or not sizes.depends_on_batch_alone(value):
        return False
    readers = _shape_readers(value, sizes)
    if not all(sizes.content(reader.outputs[0]) for reader in readers):
        return False
    own = {item for item in node.inputs if sizes.depends_on_data(item)}
    return not ({reader.inputs[0] for reader in readers} <= own and _is_plain(value, sizes))


def _is_plain(value: ir.Value | None, sizes: Sizes) -> bool:
    """Return whether all sizes that `value` is computed from are written out."""
    node = value.producer() if value is not None else None
    if value is None or node is None or not sizes.depends_on_batch_alone(value):
        return True
    content = sizes.content(value)
    if content is None or sizes.rank(value) not in (0, 1):
        return all(_is_plain(item, sizes) for item in node.inputs)
    if sizes.rank(value) == 0:
        return node.op_type == "Squeeze" and _is_plain(node.inputs[0], sizes)
    if len(content) == 1:
        return _is_number(node)
    entries = [item.producer() for item in node.inputs if item is not None]
    return node.op_type == "Concat" and len(entries) == len(content) and all(map(_is_number, entries))


def _is_number(node: ir.Node | None) -> bool:
    """Return whether `node` is as `_Copier._number` writes one; constants have no node."""
    if node is not None and node.op_type in ("Add", "Mul", "Div") and node.inputs[0] is not None:
        return _is_number(node.inputs[0].producer())
    index = node.inputs[1] if node is not None and node.op_type == "Gather" else None
    return node is None or (index is not None and index.shape is not None and len(index.shape) == 1)


def _shape_readers(value: ir.Value, sizes: Sizes) -> set[ir.Node]:
    """Return the nodes that read shapes of data and from which `value` is computed."""
    found: set[ir.Node] = set()
    waiting, seen = [value], {value}
    while waiting:
        producer = waiting.pop().producer()
        for item in producer.inputs if producer is not None else ():
            if producer is not None and sizes.depends_on_data(item):
                found.add(producer)
            elif item is not None and item not in seen and sizes.depends_on_batch_alone(item):
                seen.add(item)
                waiting.append(item)
    return found


def _find_neighbour(node: ir.Node, sizes: Sizes) -> _Neighbour | None:
    """Return the data input that has the batch size most plainly: itself rather than a multiple, on the first axis rather than later."""
    found = []
    for position, value in enumerate(node.inputs):
        if value is not None and sizes.depends_on_data(value):
            axes = enumerate(sizes.shape(value) or ())
            found += [(size.slope, axis, position, value) for axis, size in axes if size.slope > 0 and size.offset == 0]
    if not found:
        return None
    factor, axis, _, value = min(found, key=lambda item: item[:3])
    return _Neighbour(value, axis, factor)


class _Copier:
    """Copies computations on sizes, so that they take these from what `node` takes."""

    def __init__(self, node: ir.Node, sizes: Sizes, builder: Builder) -> None:
        self._neighbour = _find_neighbour(node, sizes)
        self._beside = Beside(node, sizes, builder)
        self._sizes = sizes
        self._build = builder
        self._batch: ir.Value | None = None
        self._copies: dict[ir.Value, ir.Value] = {}

    @property
    def has_neighbours(self) -> bool:
        """Return whether there is a size to be taken."""
        return self._neighbour is not None or self._beside.tells

    def copy(self, value: ir.Value) -> ir.Value:
        """Return `value` as computed from the neighbours. Raises _NotThere."""
        if self._sizes.depends_on_data(value):
            raise _NotThere
        if not self._sizes.depends_on_batch_alone(value):
            return value
        if value not in self._copies:
            self._copies[value] = self._written_out(value) or self._copied(value)
        return self._copies[value]

    def _written_out(self, value: ir.Value) -> ir.Value | None:
        """Return a number or a row of numbers written out: equal numbers give equal nodes, however they were computed."""
        content = self._sizes.content(value)
        rank = self._sizes.rank(value)
        if content is None or rank not in (0, 1) or value.dtype not in (ir.DataType.INT64, None):
            return None
        entries = [self._number(size) for size in content]
        vector = entries[0] if len(entries) == 1 else self._build.node("Concat", entries, {"axis": 0})
        return self._build.node("Squeeze", [vector]) if rank == 0 else vector

    def _number(self, size: Size) -> ir.Value:
        if size.is_constant:
            return self._build.integers([size.offset])
        if size.at:
            if (found := self._beside.number(size)) is None:
                raise _NotThere
            return found
        number = self._batch_size()
        if size.slope != 1:
            number = self._build.node("Mul", [number, self._build.integers([size.slope])])
        if size.offset:
            number = self._build.node("Add", [number, self._build.integers([size.offset])])
        return number

    def _batch_size(self) -> ir.Value:
        if self._neighbour is None:
            raise _NotThere
        if self._batch is None:
            shape = self._build.node("Shape", [self._neighbour.value])  # its `start` and `end` would need opset 15
            self._batch = self._build.node("Gather", [shape, self._build.integers([self._neighbour.axis])], {"axis": 0})
            if self._neighbour.factor != 1:
                self._batch = self._build.node("Div", [self._batch, self._build.integers([self._neighbour.factor])])
        return self._batch

    def _copied(self, value: ir.Value) -> ir.Value:
        node = value.producer()
        if node is None:
            return value
        outputs = self._build.copy(node, [None if item is None else self.copy(item) for item in node.inputs])
        return outputs[value.index() or 0]
