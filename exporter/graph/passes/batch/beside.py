"""Writes sizes that depend on free sizes by the axes of what a node takes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from exporter.graph.passes.batch.building import Builder
from exporter.graph.passes.batch.sizes import Size, Sizes

_Axis = tuple[tuple[int, ...], int, ir.Value]  # its size at each choice, its place, and what has it


class Beside:
    """What the axes of the data that `node` takes tell of sizes. builder: adds in front of it what computes one."""

    def __init__(self, node: ir.Node, sizes: Sizes, builder: Builder) -> None:
        self._build = builder
        self._made: dict[tuple[int, ...], ir.Value] = {}
        self._axes: list[_Axis] = []
        for value in node.inputs:
            if value is not None and sizes.depends_on_data(value):
                self._axes += [(size.at, axis, value) for axis, size in enumerate(sizes.shape(value) or ()) if size.at]

    @property
    def tells(self) -> bool:
        """Return whether there is an axis that depends on free sizes."""
        return bool(self._axes)

    def number(self, size: Size) -> ir.Value | None:
        """Return a tensor with the one number `size`, which depends on free sizes; None where the axes do not tell it."""
        for known, axis, value in self._axes:
            if known == size.at:
                return self._length(known, axis, value)
        for known, axis, value in self._axes:
            for operator, factor in _ways(known, size.at):
                return self._build.node(operator, [self._length(known, axis, value), self._build.integers([factor])])
        return self._product(size)

    def _product(self, size: Size) -> ir.Value | None:
        for index, (first, axis, value) in enumerate(self._axes):
            for second, other_axis, other in self._axes[index:]:
                product = tuple(left * right for left, right in zip(first, second, strict=True))
                if product == size.at:
                    return self._build.node("Mul", [self._length(first, axis, value), self._length(second, other_axis, other)])
        return None

    def _length(self, known: tuple[int, ...], axis: int, value: ir.Value) -> ir.Value:
        if known not in self._made:
            shape = self._build.node("Shape", [value])
            self._made[known] = self._build.node("Gather", [shape, self._build.integers([axis])], {"axis": 0})
        return self._made[known]


def _ways(known: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    """Yield how one number makes `wanted` of `known`."""
    pairs = [*zip(known, wanted, strict=True)]
    first, second = pairs[0]
    if second % first == 0 and all(theirs == ours * (second // first) for ours, theirs in pairs):
        yield "Mul", second // first
    if second and first % second == 0 and all(ours == theirs * (first // second) for ours, theirs in pairs):
        yield "Div", first // second
    if all(theirs - ours == second - first for ours, theirs in pairs):
        yield "Add", second - first
