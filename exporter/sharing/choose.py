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
from exporter.sharing.locally import LocalCosts
from exporter.sharing.occurrence import Key, Layout, Occurrence, Place
from exporter.sharing.segments import SegmentFinder

CutRule = Literal["exact", "cheap", "stages"]
CUT_RULES: tuple[CutRule, ...] = get_args(CutRule)


@dataclass(frozen=True)
class CutOptions:
    """How to choose cuts.

    rule: "cheap" leaves out cuts that cost more than they save; "exact" makes every cut that sharing can use; "stages" cuts where a
    stage ends (the shape of the tap changes) and nowhere else, but at every such place, so that tasks added later find their fork.
    max_segments: then leave out further cuts, those that cost least first. also_cut: addresses of taps to cut at in any case.
    copies: blocks that are not to be shared with equal ones elsewhere (see `SegmentFinder.find`).
    levels: addresses of tensors that a segment gives for tasks to come, if it runs on one stream; they decide no cut.
    """

    rule: CutRule = "cheap"
    max_segments: int | None = None
    costs: CutCosts = field(default_factory=CutCosts)
    also_cut: frozenset[str] = frozenset()
    copies: Mapping[Place, str] = field(default_factory=dict)
    levels: frozenset[str] = frozenset()


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


_Allowed = Callable[[_Step, float], bool]


def choose_cuts(chains: Sequence[Chain], wanted: Collection[str], options: CutOptions) -> tuple[Layout, tuple[CutLeftOut, ...]]:
    """Return the segments of `chains`, and the cuts that were left out.

    wanted: names of the chains whose segments count for `options.max_segments` (the backbone's own are not exported).
    Raises TooFewSegments when `options.max_segments` cannot be reached.
    """
    chooser = _Chooser(chains, options)
    if options.rule == "stages":
        chooser.leave_out(lambda step, gain: True)
    elif options.rule == "cheap":
        chooser.leave_out(lambda step, gain: gain > 0, above=0.0)
    if options.max_segments is not None:
        chooser.shrink(wanted, options.max_segments)
    return chooser.layout_with(options.levels), tuple(chooser.left_out)


class _Chooser:
    def __init__(self, chains: Sequence[Chain], options: CutOptions) -> None:
        self._chains, self._costs, self._fixed = chains, options.costs, options.also_cut
        self._also_cut = options.also_cut | (_stage_ends(chains) if options.rule == "stages" else frozenset())
        self._copies: dict[Place, str] = dict(options.copies)
        self._finder = SegmentFinder(chains)
        self._answers = {chain.name: frozenset(tap.address for tap in chain.outputs) for chain in chains}
        self._find()
        self.left_out: list[CutLeftOut] = []

    def leave_out(self, allowed: _Allowed, above: float = -inf) -> None:
        """Leave out cuts as long as a step is `allowed(step, seconds gained)`; none that gains `above` or less is."""
        while self._leave_out_one(allowed, above):
            pass

    def shrink(self, wanted: Collection[str], limit: int) -> None:
        """Leave out cuts until the chains `wanted` have at most `limit` segments together."""
        if _count(self.layout, wanted) > limit:
            self._also_cut = self._fixed
            self._find()
        while (count := _count(self.layout, wanted)) > limit:
            if not self._leave_out_one(lambda step, gain, count=count: _count(self._after(step), wanted) < count):  # type: ignore[misc]
                raise TooFewSegments(limit, count)

    def layout_with(self, levels: Collection[str]) -> Layout:
        """Return the layout whose segments also give `levels`."""
        return self._finder.joined(self._copies, self._also_cut, levels).layout() if levels else self.layout

    def _find(self) -> None:
        self._joined = self._finder.joined(self._copies, self._also_cut)
        self.layout = self._joined.layout()

    def _cost_after(self, step: _Step, local: LocalCosts) -> float:
        """Return the seconds of all segments after `step`, found from those around it, or, where that is not possible, from all."""
        found = local.after(self._finder.changed_keys(self._joined, step.copies))
        if found is not None:
            return found
        return self._costs.total(self._finder.joined(self._copies | step.copies, self._also_cut).models().values())

    def _after(self, step: _Step) -> Layout:
        return self._finder.find(self._copies | step.copies, self._also_cut)

    def _leave_out_one(self, allowed: _Allowed, above: float = -inf) -> bool:
        local = LocalCosts(self._joined, self._finder.users, self._also_cut, self._costs.of_segment)
        best: tuple[float, _Step] | None = None
        for step in sorted(self._steps(), key=lambda step: -step.most):
            if step.most <= (above if best is None else best[0]):
                break  # neither this nor a later one can gain more
            gain = local.total - self._cost_after(step, local)
            if allowed(step, gain) and (best is None or gain > best[0]):
                best = gain, step
        if best is None:
            return False
        gain, step = best
        self._copies |= step.copies
        self._find()
        self.left_out.append(replace(step.cut, seconds=gain))
        return True

    def _steps(self) -> Iterator[_Step]:
        found: dict[Key, list[_Placed]] = {}
        for name, occurrences in self.layout.items():
            for placed in _placed(occurrences, self._answers[name]):
                found.setdefault(placed.occurrence.key, []).append(placed)
        for places in found.values():
            first = places[0].occurrence
            if self._also_cut.isdisjoint(first.outputs) and not any(placed.answers for placed in places):
                yield from self._step("fork", first.given[0], places, [placed.after for placed in places])
            if self._also_cut.isdisjoint(first.inputs):
                yield from self._step("merge", first.taken[0], places, [placed.before for placed in places])

    def _step(
        self, kind: Literal["fork", "merge"], tap: Tap, places: Sequence[_Placed], ways: Sequence[frozenset[Key]]
    ) -> Iterator[_Step]:
        if not all(ways) or len(set(ways)) < 2:
            return
        names = {way: " ".join(sorted(key.text for key in way)) for way in set(ways)}
        copies = {
            (placed.occurrence.chain, block.index): f"{placed.occurrence.key.copy}/{kind}:{names[way]}"
            for placed, way in zip(places, ways, strict=True)
            for block in placed.occurrence.blocks
        }
        first = places[0].occurrence
        modules = first.blocks[-1].modules[-1:] if kind == "fork" else first.blocks[0].modules[:1]
        before = {placed.occurrence.inputs for placed in places}
        after = {(way, placed.occurrence.inputs) for placed, way in zip(places, ways, strict=True)}
        beside = frozenset[Key]().union(*(placed.before | placed.after for placed in places))
        readers = {(placed.occurrence.inputs, key) for placed in places for key in placed.after}
        most = self._costs.most_saved(first, len(names), len(beside), (len(before), len(after)), len(readers))
        yield _Step(CutLeftOut(kind, tap, modules, len(names), first.macs, first.weight_bytes), copies, most)


@dataclass(frozen=True)
class _Placed:
    """A segment in a chain: what gives it something, what takes something of it, and whether it gives an answer of the network."""

    occurrence: Occurrence
    before: frozenset[Key]
    after: frozenset[Key]
    answers: bool


def _placed(occurrences: Sequence[Occurrence], answers: Collection[str]) -> Iterator[_Placed]:
    made = {address: occurrence for occurrence in occurrences for address in occurrence.outputs}
    taken: dict[str, set[Key]] = {}
    for occurrence in occurrences:
        for address in occurrence.inputs:
            taken.setdefault(address, set()).add(occurrence.key)
    for occurrence in occurrences:
        before = frozenset(made[address].key for address in occurrence.inputs if address in made)
        after = frozenset[Key]().union(*(taken.get(address, ()) for address in occurrence.outputs))
        yield _Placed(occurrence, before, after, any(address in answers for address in occurrence.outputs))


def _count(layout: Layout, wanted: Collection[str]) -> int:
    return len({occurrence.key for name in wanted for occurrence in layout[name]})


def _stage_ends(chains: Sequence[Chain]) -> frozenset[str]:
    """Return the addresses of the taps after which the shape changes, inputs left out."""
    inputs = {tap.address for chain in chains for tap in chain.inputs}
    ends = {
        block.start.address
        for chain in chains
        for block in chain.blocks
        if block.start.shape != block.end.shape and not block.segment
    }
    return frozenset(ends - inputs)
