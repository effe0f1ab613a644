"""How many rows of a segment with free sizes run at once: longer rows are fewer. Pure functions of shapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from contract.repository.model import Segment, TensorSpec
from contract.repository.reference import at_reference, has_reference
from serving.engines.scheduling.plan_execution import Shapes


@dataclass(frozen=True)
class FreeRows:
    """The limit of a run of `segment`, whose inputs have free sizes.

    rows: the most of a run at the reference sizes. most_rows: at any sizes. max_elements: of the tensors of a run together, those that the
    segment takes and those that it gives; None: as many as `rows` have at the reference sizes.
    """

    segment: Segment
    rows: int
    most_rows: int
    max_elements: int | None = None

    def limit(self, shapes: Shapes) -> int:
        """Return the most rows of a run on inputs of these shapes, without the rows; 1 at least."""
        most = self._elements
        return max(1, min(self.most_rows, most // elements_of_row(self.segment, shapes))) if most else self.rows

    @cached_property
    def _elements(self) -> int:
        """Return the most elements of a run; 0: nobody knows."""
        segment = self.segment
        if self.max_elements is not None or not has_reference((*segment.inputs, *segment.outputs), segment.sizes):
            return self.max_elements or 0
        shapes = tuple(spec.shape for spec in at_reference(segment.inputs, segment.sizes))
        return self.rows * elements_of_row(segment, shapes)


def elements_of_row(segment: Segment, shapes: Shapes) -> int:
    """Return how many elements one row of inputs of these shapes has, with what `segment` gives for it.

    Outputs with free sizes that no input tells are taken to grow as the inputs do.
    """
    taken = sum(map(prod, shapes))
    sizes = {
        name: size
        for spec, shape in zip(segment.inputs, shapes, strict=True)
        for name, size in zip(spec.axes, shape, strict=False)
    }
    told = [spec for spec in segment.outputs if _is_told(spec, sizes)]
    given = sum(prod(spec.shape_at(sizes)) for spec in told)
    others = [spec for spec in segment.outputs if spec not in told]
    if others and has_reference((*segment.inputs, *others), segment.sizes):
        at_once = sum(prod(spec.shape) for spec in at_reference(segment.inputs, segment.sizes))
        given += sum(prod(spec.shape) for spec in at_reference(others, segment.sizes)) * taken // max(1, at_once)
    return max(1, taken + given)


def _is_told(spec: TensorSpec, sizes: dict[str, int]) -> bool:
    names = spec.axes or ("",) * len(spec.shape)
    return all(size >= 0 or (name and name in sizes) for size, name in zip(spec.shape, names, strict=True))
