"""Finds the weights that tasks have in common and compute with apart, and says why: by operators, shapes, cuts or what has no rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from contract.repository.not_shared import NotShared
from exporter.graph.chain import Block
from exporter.graph.difference import BlockNodes, first_difference
from exporter.graph.digests import weight_digest
from exporter.graph.modules import module_path
from exporter.graph.shapes import bytes_of, name_of

_SMALLEST = 1024  # bytes of a weight; less is what bounds and scales activations
_WORTH_SAYING = 1e-3  # of a segment's weights


@dataclass(frozen=True)
class SegmentGraph:
    """A segment as a part of a graph. tasks: that use it.

    blocks: what it is made of, as far as others may be made of the same. macs: of nodes, for one row. address: of a tensor in it; None
    for a segment that was there, and is not cut.
    """

    name: str
    tasks: tuple[str, ...]
    part: BlockNodes
    blocks: Sequence[Block]
    macs: Callable[[Collection[ir.Node]], int]
    address: Callable[[ir.Value], str] | None = None

    @property
    def stays(self) -> bool:
        """Return whether it was there."""
        return self.address is None

    def addresses(self, nodes: Iterable[ir.Node]) -> set[str]:
        """Return the addresses of what `nodes` make, as far as they are known."""
        return set() if self.address is None else {self.address(node.outputs[0]) for node in nodes}

    def takers(self) -> dict[bytes, list[ir.Node]]:
        """Return, by the digests of its weights, the nodes that take them."""
        found: dict[bytes, list[ir.Node]] = {}
        for node in self.part.nodes:
            for value in node.inputs:
                if value is not None and bytes_of(value) >= _SMALLEST:
                    found.setdefault(weight_digest(value), []).append(node)
        return found

    @property
    def weight_bytes(self) -> int:
        """Return the size of all weights of its blocks."""
        return sum(block.weight_bytes for block in self.blocks)


def find_not_shared(segments: Iterable[SegmentGraph]) -> list[NotShared]:
    """Return what tasks have weights in common for in different ones of `segments`, those of the same tasks and reason together.

    Where segments that stay share so among themselves, that has been said before, and is left out.
    """
    segments = sorted(segments, key=lambda segment: segment.stays)
    takers = {segment.name: segment.takers() for segment in segments}
    holders: dict[bytes, list[SegmentGraph]] = {}
    for segment in segments:
        for digest in takers[segment.name]:
            holders.setdefault(digest, []).append(segment)
    groups: dict[tuple[str, ...], list[bytes]] = {}
    for digest, found in holders.items():
        if len(found) > 1 and not found[0].stays and len(_tasks(found)) > 1:
            groups.setdefault(tuple(segment.name for segment in found), []).append(digest)
    return _merged(entry for digests in groups.values() for entry in _entries(holders[digests[0]], digests, takers))


def combined(before: Iterable[NotShared], now: Sequence[NotShared]) -> tuple[NotShared, ...]:
    """Return what was said `before` and what is said `now`, without what a new entry says of more tasks."""
    kept = [one for one in before if not any(set(one.tasks) <= set(new.tasks) and _alike(one, new) for new in now)]
    return (*kept, *now)


def _alike(one: NotShared, other: NotShared) -> bool:
    return one.weight_bytes <= other.weight_bytes and bool(one.differences) == bool(other.differences)


def _tasks(segments: Iterable[SegmentGraph]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for segment in segments for name in segment.tasks))


def _entries(
    found: Sequence[SegmentGraph], digests: Sequence[bytes], takers: Mapping[str, Mapping[bytes, list[ir.Node]]]
) -> Iterator[NotShared]:
    """Yield what there is to say of the weights `digests`, which all of the segments `found` hold; nothing, if they are next to nothing.

    The others are compared with the first, and those that are apart from it for one reason are one entry.
    """
    one = found[0]
    nodes = list(dict.fromkeys(node for digest in digests for node in takers[one.name][digest]))
    values = {weight_digest(value): value for node in nodes for value in node.inputs if value is not None and _is_weight(value)}
    size = sum(bytes_of(values[digest]) for digest in digests)
    if size < _WORTH_SAYING * one.weight_bytes:
        return
    places, macs = tuple(dict.fromkeys(map(_place, nodes))), one.macs(nodes)
    reasons: dict[str, list[SegmentGraph]] = {}
    for other in found[1:]:
        reasons.setdefault(_reason(one, other, digests), []).append(other)
    for reason, others in reasons.items():
        yield NotShared(_tasks([one, *others]), size, macs, places, reason)


def _reason(one: SegmentGraph, other: SegmentGraph, digests: Sequence[bytes]) -> str:
    """Return why two segments that hold the weights `digests` are two."""
    ours, theirs = (_with_weights(segment, digests) for segment in (one, other))
    contents = {block.content: block for block in theirs}
    for block in ours:
        if (same := contents.get(block.content)) is not None:
            return _why_equal_blocks_are_apart(block, same, stays=other.stays)
    shapes = {block.digest: block for block in theirs}
    for block in ours:
        if (same := shapes.get(block.digest)) is not None:
            pair = f"{list(block.start.shape)} and {list(same.start.shape)}"
            return f"they take rows of other shapes there ({pair}), and a model is made for one"
    if not one.addresses(_takers_of(one, digests)).isdisjoint(other.addresses(_takers_of(other, digests))):
        return (
            "they compute the same from the same there, and nothing behind it has rows that could go from one segment to another"
        )
    found = first_difference(one.part, other.part)
    return f"what differs first is {found}" if found else "they are wired in another way"


def _why_equal_blocks_are_apart(block: Block, same: Block, *, stays: bool) -> str:
    if stays:
        return "they are inside of segments that stay as they are"
    if block.addresses == same.addresses:
        return "they compute the same from the same there, and the cut behind it was left out"
    return "they compute the same from other values there, and the cuts that would run it as one batch were left out"


def _takers_of(segment: SegmentGraph, digests: Sequence[bytes]) -> list[ir.Node]:
    takers = segment.takers()
    return [node for digest in digests for node in takers.get(digest, ())]


def _with_weights(segment: SegmentGraph, digests: Sequence[bytes]) -> list[Block]:
    return [block for block in segment.blocks if not block.matrices.isdisjoint(digests)]


def _merged(entries: Iterable[NotShared]) -> list[NotShared]:
    """Return `entries`, those of the same tasks and with one reason as one."""
    found: dict[tuple[tuple[str, ...], str], NotShared] = {}
    for entry in entries:
        key = entry.tasks, entry.reason
        before = found.get(key)
        if before is not None:
            places = tuple(dict.fromkeys((*before.places, *entry.places)))
            size, macs = before.weight_bytes + entry.weight_bytes, before.macs + entry.macs
            entry = replace(before, weight_bytes=size, macs=macs, places=places)
        found[key] = entry
    return [*found.values()]


def _is_weight(value: ir.Value) -> bool:
    return bytes_of(value) >= _SMALLEST


def _place(node: ir.Node) -> str:
    """Return where `node` is: its module, or what it is called."""
    return next(iter(module_path(node)), "") or node.name or name_of(node.outputs[0])
