"""Fits new tasks to the segments that are there: those stay as they are, and a new task uses as many of them as it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from exporter.graph.chain import Block, Chain
from exporter.sharing.choose import CutOptions
from exporter.sharing.plan import PlannedStep
from exporter.sharing.segments import BlockRun, Place

_PlannedSteps = Mapping[str, Sequence[PlannedStep]]  # of the networks that are there, by their names
_OWN = "+"  # marks blocks of new tasks that no existing segment computes as a whole


@dataclass(frozen=True)
class Missed:
    """What a new task could share if a cut was moved: blocks that it has in common with an existing task, inside of a segment."""

    blocks: int
    macs: int


def keep_segments(there: _PlannedSteps, new: Iterable[Chain]) -> CutOptions:
    """Return the options under which `make_sharing_plan` leaves the segments of the networks that are `there` as they are."""
    parts = [(name, step) for name, steps in there.items() for step in steps]
    copies: dict[Place, str] = {(name, block.index): step.segment for name, step in parts for block in step.blocks}
    uses: dict[str, list[PlannedStep]] = {}
    for _, step in parts:
        uses.setdefault(step.segment, []).append(step)
    for chain in new:
        copies |= _fit(chain, uses)
    made = {tap.address for _, step in parts for tap in step.outputs}
    return CutOptions("exact", also_cut=frozenset(step.inputs[0].address for _, step in parts) & made, copies=copies)


def missed_sharing(there: _PlannedSteps, options: CutOptions, chain: Chain) -> Missed:
    """Return what the new task `chain` computes itself under `options` although an existing task computes the same on its input."""
    known = {tap.address for steps in there.values() for step in steps for block in step.blocks for tap in block.outputs}
    missed = [block for block in chain.blocks if options.copies[chain.name, block.index] == _OWN and block.end.address in known]
    return Missed(len(missed), sum(block.macs for block in missed))


def _fit(chain: Chain, segments: Mapping[str, Sequence[PlannedStep]]) -> dict[Place, str]:
    """Return for each block the existing segment that computes it there, or the mark of a block of its own."""
    taken = Counter(tap.address for block in chain.blocks for tap in block.inputs)
    taken.update(tap.address for tap in chain.outputs)
    copies: dict[Place, str] = {}
    index = 0
    while index < len(chain.blocks):
        fitting = [name for name, uses in segments.items() if _fits(chain.blocks[index:], uses[0].blocks, taken)]
        best = max(fitting, key=lambda name: (*_merit(chain.blocks[index], segments[name]), name), default=None)
        length = len(segments[best][0].blocks) if best else 1
        copies |= {(chain.name, place): best or _OWN for place in range(index, index + length)}
        index += length
    return copies


def _fits(blocks: BlockRun, segment: BlockRun, taken: Counter[str]) -> bool:
    """Whether `blocks` begin with what a `segment` computes: in one line, and with no other way out before its end."""
    blocks = blocks[: len(segment)]
    if [block.content for block in blocks] != [block.content for block in segment]:
        return False
    return all(left.end == right.start and taken[left.end.address] == 1 for left, right in pairwise(blocks))


def _merit(block: Block, uses: Sequence[PlannedStep]) -> tuple[bool, int, bool]:
    """Return how good it is to begin a segment with these `uses` at `block`: it runs there anyhow, it is long, it is in the same place.

    The place decides between segments of equal content, as a network has them that applies one activation again and again.
    """
    runs_anyhow = any(step.inputs == block.inputs for step in uses)
    return runs_anyhow, len(uses[0].blocks), any(step.blocks[0].index == block.index for step in uses)
