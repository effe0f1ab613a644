"""Weights that are nearly those of another network: rounded to half precision, or averaged. Digests find nothing equal there.

How near two tensors are is the largest |a - b| as a part of the largest |a|, a being the other network's: a weight that was rounded to half
precision is within 5e-4 of itself, one of bfloat16 within 4e-3. A block is as near as its farthest tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
import onnx_ir as ir

from contract.repository.not_shared import NotShared
from exporter.diff.block_alignment import align_blocks
from exporter.diff.diff import NEAR
from exporter.diff.weight_matching import WeightMatch, match_weights
from exporter.errors import BadSnap
from exporter.graph.chain import Block
from exporter.graph.difference import nodes_of
from exporter.graph.digests import weight_digest
from exporter.graph.shapes import name_of

_FARTHEST = 0.1  # that may be asked for
_FIRST = 64  # numbers that are looked at before all others
_CHUNK = 1 << 20
_ROUNDED = 1e-5  # of a channel's largest number: products of float32, rounded


@dataclass(frozen=True)
class Reference:
    """The network whose weights others are compared with. model: the graph that computes one of its `blocks`."""

    name: str
    blocks: Sequence[Block]
    model: Callable[[Block], ir.Model]


@dataclass(frozen=True)
class NearBlock:
    """A block that is nearly one of another network. difference: of its farthest tensor. pairs: the other's weights, and its own."""

    place: str
    block: Block
    difference: float
    pairs: tuple[WeightMatch, ...]


@dataclass(frozen=True)
class Near:
    """The blocks of the network `name` that are nearly those of `reference`."""

    name: str
    reference: str
    blocks: tuple[NearBlock, ...]

    @property
    def difference(self) -> float:
        """Return the largest difference."""
        return max(block.difference for block in self.blocks)

    def not_shared(self) -> NotShared:
        """Return it as the repository records it."""
        return NotShared(
            (self.reference, self.name),
            sum(near.block.weight_bytes for near in self.blocks),
            sum(near.block.macs for near in self.blocks),
            tuple(dict.fromkeys(near.place for near in self.blocks)),
            differences={near.place: float(f"{near.difference:.2e}") for near in self.blocks},
        )

    def take(self) -> None:
        """Put the weights of the other network in the place of the network's own."""
        for pair in (pair for near in self.blocks for pair in near.pairs):
            pair.right.const_value = pair.left.const_value
            pair.right.meta.clear()
            pair.right.meta.update(pair.left.meta)  # its digest


def check_snap(snap: float | None) -> None:
    """Raise BadSnap unless `snap` is a difference that weights may have to be taken for others, or None."""
    if snap is not None and not 0 < snap <= _FARTHEST:
        raise BadSnap(snap, _FARTHEST)


def find_near(
    name: str, blocks: Sequence[Block], model: ir.Model, reference: Reference, shared: Collection[str], most: float = NEAR
) -> Near | None:
    """Return the `blocks` of `model`, the network `name`, that are within `most` of those of `reference`; None if none is.

    shared: digests of blocks that are equal in some other network; they are left out.
    """
    counterparts = _counterparts(blocks, model, reference, shared)
    near = [found for block, pairs in counterparts if (found := _near_block(block, pairs, most)) is not None]
    return Near(name, reference.name, tuple(near)) if near else None


def find_scaled(
    name: str, blocks: Sequence[Block], model: ir.Model, reference: Reference, shared: Collection[str]
) -> NotShared | None:
    """Return what the network `name` has of the weights of `reference` but for a factor for each channel; None if nothing.

    That is how a BatchNorm that was tuned, or has other statistics, leaves a convolution when it is folded into it. As of `find_near`.
    """
    found = [
        (block, pairs)
        for block, pairs in _counterparts(blocks, model, reference, shared)
        if _near_block(block, pairs, NEAR) is None and _are_scaled(pairs)
    ]
    if not found:
        return None
    return NotShared(
        (reference.name, name),
        sum(block.weight_bytes for block, _ in found),
        sum(block.macs for block, _ in found),
        tuple(dict.fromkeys(_place(block, pairs[0].right) for block, pairs in found)),
        "they are equal but for a factor for each channel, as a BatchNorm that differs leaves them when it is folded in, so that they are "
        "stored for each, too",
    )


def _counterparts(
    blocks: Sequence[Block], model: ir.Model, reference: Reference, shared: Collection[str]
) -> Iterator[tuple[Block, tuple[WeightMatch, ...]]]:
    """Yield those of `blocks` that have one of their structure in their place in `reference`, with the weights that differ in both."""
    for theirs, ours in align_blocks(reference.blocks, blocks):
        if theirs is None or ours is None or ours.digest in shared or ours.structure != theirs.structure:
            continue
        left, right = nodes_of(reference.model(theirs), theirs), nodes_of(model, ours)
        matched = match_weights((left.inputs, left.outputs), (right.inputs, right.outputs))
        pairs = tuple(pair for pair in matched or () if weight_digest(pair.left) != weight_digest(pair.right))
        if pairs:
            yield ours, pairs


def within(near: Near, most: float) -> Near | None:
    """Return of `near` the blocks that differ by `most` at most; None if there are none."""
    blocks = tuple(block for block in near.blocks if block.difference <= most)
    return Near(near.name, near.reference, blocks) if blocks else None


def _near_block(block: Block, pairs: tuple[WeightMatch, ...], most: float) -> NearBlock | None:
    differences = []
    for pair in pairs:
        differences.append(_difference(pair, most))
        if not differences[-1] <= most:
            return None
    return NearBlock(_place(block, pairs[0].right), block, max(differences), pairs)


def _are_scaled(pairs: Sequence[WeightMatch]) -> bool:
    """Whether the kernels of `pairs` are those of the other network but for a factor each, whatever became of their biases."""
    kernels = [pair for pair in pairs if pair.left.const_value is not None and len(pair.left.const_value.shape) > 2]
    return bool(kernels) and all(_is_scaled(pair) for pair in kernels)


def _is_scaled(pair: WeightMatch) -> bool:
    left, right = pair.left.const_value, pair.right.const_value
    if left is None or right is None or left.dtype != right.dtype or not left.dtype.is_floating_point():
        return False
    a, b = (tensor.numpy().reshape(tensor.numpy().shape[0], -1) for tensor in (left, right))
    if a.shape != b.shape or not a.size:
        return False
    return all(
        _is_multiple(_floats(a[start : start + count]), _floats(b[start : start + count]))
        for start, count in ((0, 1), (1, len(a)))
    )


def _is_multiple(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether each row of `b` is that of `a` times a number."""
    places = np.abs(a).argmax(axis=1)[:, None]
    largest = np.take_along_axis(a, places, 1)
    factors = np.take_along_axis(b, places, 1) / np.where(largest == 0, 1, largest)
    return bool((np.abs(b - factors * a) <= _ROUNDED * np.abs(b).max(axis=1, keepdims=True, initial=0)).all())


def _place(block: Block, weight: ir.Value) -> str:
    name = name_of(weight)
    return block.modules[0] if block.modules else name.rpartition(".")[0] or name


def _difference(pair: WeightMatch, most: float) -> float:
    """Return how far the two tensors of `pair` are apart; infinity where they cannot be compared, or more than `most` at once."""
    left, right = pair.left.const_value, pair.right.const_value
    if left is None or right is None or left.dtype != right.dtype or not left.dtype.is_floating_point():
        return inf
    ours, theirs = left.numpy().reshape(-1), right.numpy().reshape(-1)
    if ours.shape != theirs.shape or not ours.size:
        return inf
    largest = max(float(np.abs(chunk).max()) for chunk, _ in _chunks(ours, ours))
    if not isfinite(largest) or not largest:
        return inf
    if float(np.abs(_floats(ours[:_FIRST]) - _floats(theirs[:_FIRST])).max()) > most * largest:
        return inf
    found = max(float(np.abs(a - b).max()) for a, b in _chunks(ours, theirs)) / largest
    return found if isfinite(found) else inf


def _chunks(left: np.ndarray, right: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, left.size, _CHUNK):
        yield _floats(left[start : start + _CHUNK]), _floats(right[start : start + _CHUNK])


def _floats(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)


def explain_taken(near: Near, change: str) -> str:
    """Return that a network takes weights of another one, in a sentence that goes on after its name. change: of its answers, a clause."""
    blocks = "one block" if len(near.blocks) == 1 else f"{len(near.blocks)} blocks"
    return f"takes the weights of {near.reference} for {blocks}, which differ by {near.difference:.1e} of the largest at most; {change}."


def explain_near(found: Mapping[str, Near]) -> tuple[NotShared, ...]:
    """Return what is nearly equal as the repository records it."""
    return tuple(near.not_shared() for near in found.values())
