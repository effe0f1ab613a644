"""How much one weight differs from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.diff.weight_matching import WeightMatch
from exporter.graph.digests import weight_digest
from exporter.graph.modules import module_path
from exporter.graph.shapes import name_of

_CHUNK = 1 << 20  # numbers that are compared at once: float64 copies of whole weights would take memory


@dataclass(frozen=True)
class WeightDiff:
    """A weight a of one network and the weight b in its place in another.

    name: as in the first network, with its module's path in front where the name has none. numbers: how many it holds.
    changed: how many of them differ; None where shapes differ, so that nothing else is known. largest_change: the largest |b - a|.
    norm, difference_norm: of a and of b - a (Frobenius, summed in float64). largest: the largest |a|.
    """

    name: str
    shape: tuple[int, ...]
    other_shape: tuple[int, ...]
    numbers: int
    changed: int | None = None
    largest_change: float | None = None
    norm: float = 0.0
    difference_norm: float = 0.0
    largest: float = 0.0

    @property
    def relative_change(self) -> float | None:
        """Return the largest |b - a| as a part of the largest |a|: infinite where only a is zero, None where the shapes differ."""
        if self.largest_change is None:
            return None
        return self.largest_change / self.largest if self.largest else inf if self.largest_change else 0.0

    @property
    def relative_norm(self) -> float | None:
        """Return ||b - a|| / ||a||: infinite where only a is zero, None where the shapes differ."""
        return relative_norm([self])


def relative_norm(changes: Sequence[WeightDiff]) -> float | None:
    """Return ||b - a|| / ||a|| over several weights together; None if there are none or the shapes of one differ."""
    if not changes or any(change.changed is None for change in changes):
        return None
    difference = sqrt(sum(change.difference_norm**2 for change in changes))
    norm = sqrt(sum(change.norm**2 for change in changes))
    if difference == 0:
        return 0.0
    return difference / norm if norm else inf


def counts(pair: WeightMatch) -> bool:
    """Return whether `pair` is a weight: floating-point numbers, or integers (quantised ones, say) that differ."""
    return _tensor(pair.left).dtype.is_floating_point() or weight_digest(pair.left) != weight_digest(pair.right)


def measure(pair: WeightMatch) -> WeightDiff:
    """Return how the weights of `pair` differ."""
    left, right = _tensor(pair.left), _tensor(pair.right)
    ours, theirs = left.numpy(), right.numpy()
    name, text = _name(pair), ir.DataType.STRING in (left.dtype, right.dtype)
    if ours.shape != theirs.shape or text:
        return WeightDiff(name, ours.shape, theirs.shape, ours.size)
    changed, largest, most, norm, difference_norm = 0, 0.0, 0.0, 0.0, 0.0
    for start in range(0, ours.size, _CHUNK):
        a, b = (_chunk(array, start) for array in (ours, theirs))
        difference = b - a
        changed += int(np.count_nonzero(difference))
        largest = float(np.maximum(largest, np.abs(difference).max()))  # keeps NaN
        most = float(np.maximum(most, np.abs(a).max()))
        norm += float(a @ a)
        difference_norm += float(difference @ difference)
    return WeightDiff(name, ours.shape, ours.shape, ours.size, changed, largest, sqrt(norm), sqrt(difference_norm), most)


def _chunk(array: NDArray[np.generic], start: int) -> NDArray[np.float64]:
    return array.reshape(-1)[start : start + _CHUNK].astype(np.float64)


def _name(pair: WeightMatch) -> str:
    name = name_of(pair.left).removeprefix("network.")  # the exporter's own wrapper
    if "." in name:
        return name
    return ".".join([*module_path(pair.node), name])


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None  # a canonical graph's initializers are constants, as their digests have proved
    return value.const_value
