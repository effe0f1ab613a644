"""Which axes of a network's tensors have the batch on them, and which depend on free sizes: told by shapes at several sizes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import onnx_ir as ir

from contract.repository.free_sizes import FreeSize, references_of
from exporter.graph.free.expressions import Vector, describe
from exporter.graph.free.sizes import free_sizes, points
from exporter.graph.shapes import Inference, Inferred, Shapes, name_of

_ROWS = 3


class Axes:
    """Shapes of the tensors of `model`. one, other: what is known of them for one row and for three, at the reference sizes."""

    def __init__(self, model: ir.Model) -> None:
        self.sizes = free_sizes(model)
        reference = references_of(self.sizes)
        inference = Inference(model)
        self.one, self.other = inference.at(1), inference.at(_ROWS)
        changed = changed_sizes(model, inference, 1)
        self._points = [reference, *(point for point, _ in changed)]
        self._changed: list[Shapes] = [known.shapes for _, known in changed]

    @property
    def shapes(self) -> Shapes:
        """Return the shapes for one row, at the reference sizes."""
        return self.one.shapes

    def have_rows(self, value: ir.Value) -> bool:
        """Whether `value` has the batch on its first axis and nothing else depends on it: only then can rows be split and stacked."""
        name = name_of(value)
        first, second = self.one.shapes.get(name, ()), self.other.shapes.get(name, ())
        has_rows = len(first) > 1 and first[0] == 1 and second[:1] == (_ROWS,) and first[1:] == second[1:]
        return has_rows and all(shapes.get(name, ())[:1] == (1,) for shapes in self._changed) and self._has_known_rank(name)

    def shape(self, value: ir.Value) -> tuple[int, ...]:
        """Return the shape of a row, -1 for what depends on free sizes."""
        return tuple(
            -1 if free else size for size, free in zip(self.one.shapes[name_of(value)][1:], self._free(value), strict=True)
        )

    def names(self, value: ir.Value) -> tuple[str, ...]:
        """Return what the axes of a row are called, "" where one is fixed; nothing where all are."""
        names = tuple(self._name(vector) if vector else "" for vector in self._free(value))
        return names if any(names) else ()

    def known(self, value: ir.Value) -> dict[str, FreeSize]:
        """Return what is known of the free axes of `value`, by their names."""
        vectors = zip(self.names(value), self._free(value), strict=False)
        return {name: self.sizes.get(name, FreeSize(vector[0])) for name, vector in vectors if vector}

    def _has_known_rank(self, name: str) -> bool:
        return len({len(shapes.get(name, ())) for shapes in (self.one.shapes, *self._changed)}) == 1

    def _free(self, value: ir.Value) -> list[Vector]:
        """Return for each axis of a row its size at each choice of free sizes, nothing where it is always the same."""
        found = zip(*(shapes[name_of(value)][1:] for shapes in (self.one.shapes, *self._changed)), strict=True)
        return [sizes if len(set(sizes)) > 1 else () for sizes in found]

    def _name(self, vector: Vector) -> str:
        if vector not in self._names:
            self._names[vector] = describe(vector, self._bases, self._all)
        return self._names[vector]

    @cached_property
    def _names(self) -> dict[Vector, str]:
        return {}

    @cached_property
    def _bases(self) -> Mapping[str, Vector]:
        return {name: tuple(point[name] for point in self._points) for name in self.sizes}

    @cached_property
    def _all(self) -> frozenset[Vector]:
        """Return all sizes that depend on free ones, of any tensor."""
        every = (self.one.shapes, *self._changed)
        names = [name for name in self.one.shapes if len({len(shapes.get(name, ())) for shapes in every}) == 1]
        return frozenset(
            sizes for name in names for sizes in zip(*(shapes[name] for shapes in every), strict=True) if len(set(sizes)) > 1
        )


def changed_sizes(model: ir.Model, inference: Inference, batch: int) -> list[tuple[Mapping[str, int], Inferred]]:
    """Return other free sizes of `model` than the references, and what is known of its tensors there; none where it has no free sizes.

    Sizes that it cannot have, because some that are halved must be even, are left out, as long as others show what depends on them.
    """
    outputs = [name_of(value) for value in model.graph.outputs]
    found: list[tuple[Mapping[str, int], Inferred]] = []
    for group in points(free_sizes(model))[1]:
        seen = [(point, inference.at(batch, point)) for point in group]
        known = [pair for pair in seen if all(name in pair[1].shapes for name in outputs)]
        found += known or seen
    return found
