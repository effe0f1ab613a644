"""Tensors whose sizes are free as they are at the reference sizes, at which costs are stated and models are tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from contract.repository.free_sizes import FreeSize, references_of
from contract.repository.model import TensorSpec


def at_reference(specs: Iterable[TensorSpec], sizes: Mapping[str, FreeSize]) -> tuple[TensorSpec, ...]:
    """Return `specs` with the reference sizes in place of free ones. Raises KeyError where a free axis has none."""
    return at_sizes(specs, references_of(sizes))


def at_sizes(specs: Iterable[TensorSpec], sizes: Mapping[str, int]) -> tuple[TensorSpec, ...]:
    """Return `specs` with `sizes`, by name, in place of free ones. Raises KeyError where one is missing."""
    return tuple(TensorSpec(spec.name, spec.dtype, spec.shape_at(sizes), spec.layout) for spec in specs)


def has_reference(specs: Iterable[TensorSpec], sizes: Mapping[str, FreeSize]) -> bool:
    """Return whether each free axis of `specs` has a reference size."""
    return all(
        size >= 0 or (axis < len(spec.axes) and spec.axes[axis] in sizes)
        for spec in specs
        for axis, size in enumerate(spec.shape)
    )
