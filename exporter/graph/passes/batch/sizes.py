"""What a graph computes from its batch size alone.

Shapes are inferred, and what is computed from them is evaluated, at two batch sizes; a number that is `slope * batch + offset` with
whole slope at both is taken to be so at all. That is no proof (a minimum of the batch size and 64 would pass), but networks have
nothing of the kind, and the exporter compares the result with the whole model before anybody sees it.

Where a network has free sizes, other than the batch, it is looked at with some of them changed, too. What changes with them is known by
what it is each time: two such numbers are one if they are equal each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from contract.dtypes import Array
from exporter.graph.axes import changed_sizes
from exporter.graph.shapes import RANDOM, SHAPE_READERS, Inference, Inferred, name_of, run_node

_PROBES = (5, 7)  # coprime with each other and rarely a dimension


@dataclass(frozen=True)
class Size:
    """The number slope * batch + offset; or one that depends on free sizes, which is `at` each of the choices that were looked at."""

    slope: int
    offset: int
    at: tuple[int, ...] = ()

    @property
    def is_constant(self) -> bool:
        """Return whether it is the same at every batch size, and at all free sizes."""
        return self.slope == 0 and not self.at

    @property
    def is_of_row(self) -> bool:
        """Return whether it is the same at every batch size."""
        return self.slope == 0 and self.at[:1] == self.at[1:2]


def uses_sizes(graph: ir.Graph) -> bool:
    """Return whether any node of `graph` asks for a shape."""
    return any(node.op_type in SHAPE_READERS for node in graph)


class Sizes:
    """Shapes and contents as functions of the batch size, and which values depend on nothing else. Does not follow later changes."""

    def __init__(self, model: ir.Model) -> None:
        self._opsets = model.opset_imports
        self._probes = _probes(model)
        self._of_batch: set[ir.Value] = set()
        self._of_data: set[ir.Value] = set(model.graph.inputs)
        for node in model.graph:
            self._visit(node)

    @property
    def are_free(self) -> bool:
        """Return whether the network has free sizes other than the batch."""
        return len(self._probes) > len(_PROBES)

    def shape(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        """Return the shape of `value`, or None when it is not known or not linear in the batch size."""
        return _sizes([probe.shapes.get(name_of(value)) for probe in self._probes])

    def has_rows(self, value: ir.Value | None) -> bool:
        """Return whether `value` has the batch on its first axis and nowhere else: a network can be cut there."""
        first, *others = self.shape(value) or (Size(0, 0),)
        return first == Size(1, 0) and bool(others) and all(size.is_of_row for size in others)

    def content(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        """Return the whole numbers in `value`, flattened, or None when they are not known, or not linear in the batch size."""
        return _sizes([_numbers(value, probe) for probe in self._probes])

    def evaluated(self, value: ir.Value | None, other: ir.Value) -> list[tuple[Array | None, tuple[int, ...] | None]]:
        """Return, for each batch size and choice of free sizes, what is in `value`, however large, and the shape of `other`."""
        opsets = dict(self._opsets)
        return [(_evaluate(value, probe, opsets), probe.shapes.get(name_of(other))) for probe in self._probes]

    def rank(self, value: ir.Value) -> int | None:
        """Return the number of axes of `value`, or None when its shape is not known."""
        shape = self.shape(value)
        return None if shape is None else len(shape)

    def depends_on_batch_alone(self, value: ir.Value | None) -> bool:
        """Return whether `value` depends on the input, but only through its shape: the batch size, and free sizes."""
        return value in self._of_batch

    def depends_on_data(self, value: ir.Value | None) -> bool:
        """Return whether `value` depends on what is in the input."""
        return value in self._of_data

    def _visit(self, node: ir.Node) -> None:
        of_data = any(value in self._of_data for value in node.inputs)
        of_batch = any(value in self._of_batch for value in node.inputs)
        if node.op_type in RANDOM or (of_data and node.op_type not in SHAPE_READERS):
            self._of_data.update(node.outputs)
        elif of_data or of_batch:
            self._of_batch.update(node.outputs)


def _numbers(value: ir.Value | None, probe: Inferred) -> tuple[int, ...] | None:
    if value is None:
        return None
    array = value.const_value.numpy() if value.const_value is not None else probe.contents.get(name_of(value))
    if array is None or not np.issubdtype(array.dtype, np.integer):
        return None
    return tuple(int(entry) for entry in array.flatten())


def _evaluate(value: ir.Value | None, probe: Inferred, opsets: dict[str, int]) -> Array | None:
    """Return what is in `value`, which depends on shapes alone; None if it cannot be computed."""
    if value is None or value.const_value is not None:
        return None if value is None or value.const_value is None else value.const_value.numpy()
    node = value.producer()
    if node is None:
        return None
    if node.op_type in SHAPE_READERS:
        shape = probe.shapes.get(name_of(node.inputs[0]))
        inputs: dict[str, Array] | None = (
            None if shape is None else {name_of(node.inputs[0]): np.broadcast_to(np.float32(0), shape)}
        )
    else:
        found = {name_of(item): _evaluate(item, probe, opsets) for item in node.inputs if item is not None}
        inputs = {name: array for name, array in found.items() if array is not None}
        inputs = inputs if len(inputs) == len(found) else None
    outputs = run_node(ir.to_proto(node), inputs, opsets) if inputs is not None else None
    return outputs[value.index() or 0] if outputs is not None else None


def _probes(model: ir.Model) -> list[Inferred]:
    """Return what is known of `model` at two batch sizes, and for the first one at other free sizes, too."""
    inference = Inference(model)
    changed = changed_sizes(model, inference, _PROBES[0])
    return [*map(inference.at, _PROBES), *(known for _, known in changed)]


def _sizes(found: Sequence[tuple[int, ...] | None]) -> tuple[Size, ...] | None:
    """Return what each entry is, of which `found` has the numbers for each probe; None if they are not known, or their count differs."""
    known = [numbers for numbers in found if numbers is not None]
    if len(known) < len(found) or len({len(numbers) for numbers in known}) > 1:
        return None
    sizes = [_size(numbers) for numbers in zip(*known, strict=True)]
    return None if None in sizes else tuple(size for size in sizes if size is not None)


def _size(numbers: tuple[int, ...]) -> Size | None:
    """Return the line through the numbers at two batch sizes, if they depend on nothing else; None if its slope is no whole number."""
    first, second, *others = numbers
    if any(number != first for number in others):
        return Size(0, 0, numbers)
    slope, rest = divmod(second - first, _PROBES[1] - _PROBES[0])
    return None if rest else Size(slope, first - slope * _PROBES[0])
