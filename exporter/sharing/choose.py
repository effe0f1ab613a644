"""Chooses the cuts: every cut that sharing can use, less those that cost more than they save.

A cut is left out by giving each way through a segment a copy of it: a fork moves to before the segment (which is then computed on each
way), a merge to after it (its weights are then stored for each way). The steps are taken one at a time, the most rewarding first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal, get_args

from exporter.errors import TooFewSegments
from exporter.graph.chain import Chain, Tap
from exporter.sharing.costs import CutCosts
from exporter.sharing.segments import Key, Layout, Occurrence, Place, SegmentFinder

CutRule = Literal["exact", "cheap", "stages"]
CUT_RULES: tuple[CutRule, ...] = get_args(CutRule)


@dataclass(frozen=True)
class CutOptions:
    """How to choose cuts.

    rule: "cheap" leaves out cuts that cost more than they save; "exact" makes every cut that sharing can use; "stages" cuts where a
    stage ends (the shape of the tap changes) and nowhere else, but at every such place, so that tasks added later find their fork.
    max_segments: then leave out further cuts, those that cost least first. also_cut: addresses of taps to cut at in any case.
    copies: blocks that are not to be shared with equal ones elsewhere (see `SegmentFinder.find`).
    """

    rule: CutRule = "cheap"
    max_segments: int | None = None
    costs: CutCosts = field(default_factory=CutCosts)
    also_cut: frozenset[str] = frozenset()
    copies: Mapping[Place, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CutLeftOut:
    """A place `tap` where `ways` ways part ("fork") or meet ("merge") without a cut; `modules`: the one before it, or after it.

    macs, weight_bytes: what each further way computes or stores again. seconds: what a request gains by it (negative: loses).
    """

    kind: Literal["fork", "merge"]
    tap: Tap
    modules: tuple[str, ...]
    ways: int
    macs: int
    weight_bytes: int
    seconds: float = 0.0


@dataclass(frozen=True)
class _Step:
    """One more cut to leave out, and the copies of blocks that do it."""

    cut: CutLeftOut
    copies: dict[Place, str]
    most: float  # seconds that it can gain


_Allowed = Callable[[_Step, float, Layout], bool]


def choose_cuts(chains: Sequence[Chain], wanted: Collection[str], options: CutOptions) -> tuple[Layout, tuple[CutLeftOut, ...]]:
    """Return the segments of `chains`, and the cuts that were left out.

    wanted: names of the chains whose segments count for `options.max_segments` (the backbone's own are not exported).
    Raises TooFewSegments when `options.max_segments` cannot be reached.
    """
    chooser = _Chooser(chains, options)
    if options.rule == "stages":
        chooser.leave_out(lambda step, gain, layout: True)
    elif options.rule == "cheap":
        chooser.leave_out(lambda step, gain, layout: gain > 0, above=0.0)
    if options.max_segments is not None:
        chooser.shrink(wanted, options.max_segments)
    return chooser.layout, tuple(chooser.left_out)


class _Chooser:
    def __init__(self, chains: Sequence[Chain], options: CutOptions) -> None:
        self._chains, self._costs, self._fixed = chains, options.costs, options.also_cut
        self._also_cut = options.also_cut | (_stage_ends(chains) if options.rule == "stages" else frozenset())
        self._copies: dict[Place, str] = dict(options.copies)
        self._find = SegmentFinder(chains).find
        self.layout = self._find(self._copies, self._also_cut)
        self.left_out: list[CutLeftOut] = []

    def leave_out(self, allowed: _Allowed, above: float = -inf) -> None:
        """Leave out cuts as long as a step is `allowed(step, seconds gained, layout after it)`; none that gains `above` or less is."""
        while self._leave_out_one(allowed, above):
            pass

    def shrink(self, wanted: Collection[str], limit: int) -> None:
        """Leave out cuts until the chains `wanted` have at most `limit` segments together."""
        if _count(self.layout, wanted) > limit:
            self._also_cut = self._fixed
            self.layout = self._find(self._copies, self._also_cut)
        while (count := _count(self.layout, wanted)) > limit:
            if not self._leave_out_one(lambda step, gain, layout, count=count: _count(layout, wanted) < count):  # type: ignore[misc]
                raise TooFewSegments(limit, count)

    def _leave_out_one(self, allowed: _Allowed, above: float = -inf) -> bool:
        before = self._costs.total(self.layout.values())
        best: tuple[float, _Step, Layout] | None = None
        for step in sorted(self._steps(), key=lambda step: -step.most):
            if step.most <= (above if best is None else best[0]):
                break  # neither this nor a later one can gain more
            layout = self._find(self._copies | step.copies, self._also_cut)
            gain = before - self._costs.total(layout.values())
            if allowed(step, gain, layout) and (best is None or gain > best[0]):
                best = gain, step, layout
        if best is None:
            return False
        gain, step, self.layout = best
        self._copies |= step.copies
        self.left_out.append(replace(step.cut, seconds=gain))
        return True

    def _steps(self) -> Iterator[_Step]:
        by_key: dict[Key, list[Occurrence]] = {}
        for occurrences in self.layout.values():
            for occurrence in occurrences:
                by_key.setdefault(occurrence.key, []).append(occurrence)
        for occurrences in by_key.values():
            first = occurrences[0].blocks
            if first[-1].end.address not in self._also_cut:
                yield from self._step("fork", first[-1].end, occurrences, self._way_on)
            if len(first[0].inputs) == 1 and first[0].start.address not in self._also_cut:
                yield from self._step("merge", first[0].start, occurrences, self._way_here)

    def _step(
        self, kind: Literal["fork", "merge"], tap: Tap, occurrences: list[Occurrence], way: Callable[[Occurrence], str | None]
    ) -> Iterator[_Step]:
        ways = [way(occurrence) for occurrence in occurrences]
        if None in ways or len(set(ways)) < 2:
            return
        copies = {
            (occurrence.chain, block.index): f"{occurrence.key.copy}/{kind}:{name}"
            for occurrence, name in zip(occurrences, ways, strict=True)
            for block in occurrence.blocks
        }
        blocks = occurrences[0].blocks
        macs, weight_bytes = sum(block.macs for block in blocks), sum(block.weight_bytes for block in blocks)
        modules = blocks[-1].modules[-1:] if kind == "fork" else blocks[0].modules[:1]
        before = {occurrence.inputs for occurrence in occurrences}
        after = {(name, occurrence.inputs) for occurrence, name in zip(occurrences, ways, strict=True)}
        most = self._costs.most_saved(blocks, len(set(ways)), len(occurrences), len(after) - len(before))
        yield _Step(CutLeftOut(kind, tap, modules, len(set(ways)), macs, weight_bytes), copies, most)

    def _way_on(self, occurrence: Occurrence) -> str | None:
        """Return what follows `occurrence` in its chain; None if that is not one segment."""
        followers = [other for other in self.layout[occurrence.chain] if occurrence.outputs[0] in other.inputs]
        return followers[0].key.text if len(followers) == 1 and followers[0].inputs[0] == occurrence.outputs[0] else None

    def _way_here(self, occurrence: Occurrence) -> str | None:
        """Return what precedes `occurrence` in its chain; None at the input."""
        return next((other.key.text for other in self.layout[occurrence.chain] if occurrence.inputs[0] in other.outputs), None)


def _count(layout: Layout, wanted: Collection[str]) -> int:
    return len({occurrence.key for name in wanted for occurrence in layout[name]})


def _stage_ends(chains: Sequence[Chain]) -> frozenset[str]:
    """Return the addresses of the taps after which the shape changes, inputs left out."""
    inputs = {tap.address for chain in chains for tap in chain.inputs}
    ends = {block.start.address for chain in chains for block in chain.blocks if block.start.shape != block.end.shape}
    return frozenset(ends - inputs)
