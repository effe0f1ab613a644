"""How much work one row of a request is where its sizes are free: by the sizes that it brings, against those at which costs are stated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from contract.dtypes import Array
from contract.repository.free_sizes import FreeSize
from contract.repository.model import TensorSpec


@dataclass(frozen=True)
class Volume:
    """The *volume* of a row: the product of its free sizes, of the input of which it is largest; 256 for texts of 256 tokens.

    places: of each input with free axes, where they are, the rows being axis 0. reference: the volume at the reference sizes; 0: not known.
    """

    places: Mapping[str, tuple[int, ...]]
    reference: int = 0

    def of(self, inputs: Mapping[str, Array]) -> int:
        """Return the volume of a row of `inputs`, arrays of shape (n, ...) by name; 1 at least."""
        volumes: list[int] = [prod(inputs[name].shape[place] for place in places) for name, places in self.places.items()]
        return max(1, *volumes)

    def in_reference_rows(self, inputs: Mapping[str, Array], rows: int) -> int:
        """Return how many rows at the reference sizes are as much as `rows` of `inputs`, 1 at least; `rows` where nobody knows."""
        return max(1, -(-rows * self.of(inputs) // self.reference)) if self.reference else rows

    def as_many_as(self, reference_rows: int, inputs: Mapping[str, Array]) -> int:
        """Return how many rows of `inputs` are as much as these rows at the reference sizes: 1 at least, and no more than those are."""
        return (
            min(reference_rows, max(1, reference_rows * self.reference // self.of(inputs))) if self.reference else reference_rows
        )


def is_free(specs: Iterable[TensorSpec]) -> bool:
    """Return whether a size of one of `specs` is for clients to choose."""
    return any(size < 0 for spec in specs for size in spec.shape)


def volume_of(specs: Iterable[TensorSpec], sizes: Mapping[str, FreeSize]) -> Volume | None:
    """Return what the volume of rows of inputs like `specs` is, None where no size is free. sizes: as of a task or a segment."""
    free = [(spec, _free_axes(spec)) for spec in specs if is_free([spec])]
    if not free:
        return None
    named = all(spec.axes and spec.axes[axis] in sizes for spec, axes in free for axis in axes)
    volumes = [prod(sizes[spec.axes[axis]].reference for axis in axes) for spec, axes in free] if named else [0]
    return Volume({spec.name: tuple(axis + 1 for axis in axes) for spec, axes in free}, max(volumes))


def joint_volume(volumes: Iterable[Volume | None]) -> Volume | None:
    """Return the volume of rows of the inputs of several tasks; its reference is the largest, 0 where one is not known."""
    found = [volume for volume in volumes if volume is not None]
    if not found:
        return None
    references = [volume.reference for volume in found]
    places = {name: axes for volume in found for name, axes in volume.places.items()}
    return Volume(places, max(references) if all(references) else 0)


def _free_axes(spec: TensorSpec) -> list[int]:
    return [axis for axis, size in enumerate(spec.shape) if size < 0]
