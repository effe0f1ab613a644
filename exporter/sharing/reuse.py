"""Fits new tasks to the segments that are there: those stay as they are, and a new task uses as many of them as it can.

What a segment computes on the same tensors is taken from it (`usable`). Where it computes the same on other tensors (a frozen suffix
behind a tuned block), its blocks are found among those of the task (`fit_segments`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter

from exporter.graph.chain import Block, Chain, Tap, in_order, span_of
from exporter.sharing.choose import CutOptions
from exporter.sharing.occurrence import BlockRun, Place
from exporter.sharing.plan import PlannedSegment, PlannedStep

_OWN = "+"  # marks blocks of new tasks that no existing segment computes


@dataclass(frozen=True)
class Existing:
    """A segment where it is used, as one block. values: the addresses of all that it computes there.

    is_cheap: whether some of these are computed next to nothing for.
    """

    block: Block
    values: frozenset[str]
    is_cheap: Callable[[frozenset[str]], bool] = field(default=lambda values: not values, repr=False, compare=False)


@dataclass(frozen=True)
class Missed:
    """What a new task could share if a cut was moved: blocks that it has in common with an existing task, inside of a segment."""

    blocks: int
    macs: int
    weight_bytes: int = 0


def as_block(step: PlannedStep, segment: PlannedSegment) -> Block:
    """Return `segment` as one block, where the `step` of a task applies it."""
    blocks = step.blocks
    return replace(_whole(blocks, segment.digest), inputs=step.inputs, outputs=step.outputs, segment=segment.name)


def _whole(blocks: Sequence[Block], digest: str) -> Block:
    return replace(
        blocks[-1],
        digest=digest,
        structure=digest,
        macs=sum(block.macs for block in blocks),
        parameters=sum(block.parameters for block in blocks),
        weight_bytes=sum(block.weight_bytes for block in blocks),
        span=span_of(blocks),
    )


def usable(existing: Iterable[Existing], inputs: Iterable[Tap], values: Collection[str]) -> list[Block]:
    """Return the blocks of `existing` that a network may use, which computes `values` from `inputs`.

    existing: each after those whose outputs it takes. A network needs all that a segment computes, but for what is cheap (the pooling of
    a classifier, behind the levels that a dense task takes); of two that give the same tensor it takes the larger one.
    """
    wanted, known = frozenset(values), {tap.address for tap in inputs}
    makers: dict[str, Existing] = {}
    for one in existing:
        if known.issuperset(one.block.addresses) and one.is_cheap(one.values - known - wanted):
            known.update(tap.address for tap in one.block.outputs)
            for tap in one.block.outputs:
                before = makers.get(tap.address)
                if before is None or _merit(one) > _merit(before):
                    makers[tap.address] = one
    chosen = {id(one): one for one in makers.values()}
    return [one.block for one in existing if id(one) in chosen]


def _merit(one: Existing) -> tuple[int, str]:
    return len(one.values), one.block.segment


def keep_segments(chains: Iterable[Chain]) -> CutOptions:
    """Return the options under which `make_sharing_plan` leaves the segments that blocks of `chains` are as they are."""
    copies: dict[Place, str] = {(chain.name, block.index): block.segment or _OWN for chain in chains for block in chain.blocks}
    return CutOptions("exact", copies=copies)


def missed_sharing(values: Collection[str], chain: Chain) -> Missed:
    """Return what the new task `chain` computes itself although an existing task computes the same: one of `values`."""
    missed = [block for block in chain.blocks if not block.segment and block.end.address in values]
    return Missed(len(missed), sum(block.macs for block in missed), sum(block.weight_bytes for block in missed))


@dataclass(frozen=True)
class Pattern:
    """The blocks of a segment, and the taps that it takes and gives, as they are in one place."""

    digest: str
    blocks: BlockRun
    inputs: tuple[Tap, ...]
    outputs: tuple[Tap, ...]


def fit_segments(chain: Chain, patterns: Mapping[str, Pattern]) -> Chain:
    """Return `chain` with those of its own blocks that a segment computes as a whole in one block, which is that segment.

    patterns: of the segments that are there, by their names. The larger ones are tried first.
    """
    for name, pattern in sorted(patterns.items(), key=lambda item: (-len(item[1].blocks), item[0])):
        inner = {tap.address for block in pattern.blocks for tap in block.inputs}
        last = [block for block in pattern.blocks if inner.isdisjoint(tap.address for tap in block.outputs)]
        for address in [block.end.address for block in chain.blocks if len(last) == 1 and block.content == last[0].content]:
            end = next((block for block in chain.blocks if block.end.address == address), None)
            chain = (end and _fitted(chain, name, pattern, (last[0], end))) or chain
    return chain


def _fitted(chain: Chain, name: str, pattern: Pattern, ends: tuple[Block, Block]) -> Chain | None:
    """Return `chain` with the segment `name` in place of blocks of which the last is the second of `ends`; None if it does not fit."""
    match = _Match(pattern, chain)
    if not match.covers(*ends) or len(match.blocks) != len(pattern.blocks):
        return None
    blocks = [*match.blocks.values()]
    others = [block for block in chain.blocks if all(block is not found for found in blocks)]
    inputs, outputs = (tuple(match.taps[tap.address] for tap in taps) for taps in (pattern.inputs, pattern.outputs))
    inside = {tap.address for block in blocks for tap in block.outputs} - {tap.address for tap in outputs}
    if not inside.isdisjoint(tap.address for taps in (*(block.inputs for block in others), chain.outputs) for tap in taps):
        return None
    whole = replace(_whole(blocks, pattern.digest), inputs=inputs, outputs=outputs, segment=name)
    ordered = _ordered([*others, whole])
    return replace(chain, blocks=ordered) if ordered else None


class _Match:
    """Lays the blocks of a segment over those of a chain. blocks: by the index in the segment. taps: by the address in the segment."""

    def __init__(self, pattern: Pattern, chain: Chain) -> None:
        self.blocks: dict[int, Block] = {}
        self.taps: dict[str, Tap] = {}
        self._made = {tap.address: block for block in chain.blocks for tap in block.outputs}
        self._inner = {tap.address: (block, index) for block in pattern.blocks for index, tap in enumerate(block.outputs)}

    def covers(self, ours: Block, theirs: Block) -> bool:
        """Whether `theirs`, of the chain, and all before it, stand for `ours`, of the segment, and all before it."""
        if ours.index in self.blocks:
            return self.blocks[ours.index] is theirs
        if theirs.segment or ours.content != theirs.content or any(theirs is found for found in self.blocks.values()):
            return False
        self.blocks[ours.index] = theirs
        self.taps |= {our.address: their for our, their in zip(ours.outputs, theirs.outputs, strict=True)}
        return all(self._covers_input(our, their) for our, their in zip(ours.inputs, theirs.inputs, strict=True))

    def _covers_input(self, ours: Tap, theirs: Tap) -> bool:
        if ours.address not in self._inner:
            return self.taps.setdefault(ours.address, theirs).address == theirs.address
        block, index = self._inner[ours.address]
        maker = self._made.get(theirs.address)
        return maker is not None and maker.outputs[index].address == theirs.address and self.covers(block, maker)


def _ordered(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Return `blocks`, each after those whose taps it takes; none if there is no such order."""
    makers = {tap.address: place for place, block in enumerate(blocks) for tap in block.outputs}
    before = {
        place: sorted({makers[tap.address] for tap in block.inputs if tap.address in makers})
        for place, block in enumerate(blocks)
    }
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError:
        return ()
    return in_order([blocks[place] for place in order])
