"""Fits new tasks to the segments that are there: those stay as they are, and a new task uses as many of them as it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from exporter.chain import Block, Chain
from exporter.choose import CutOptions
from exporter.existing import Existing
from exporter.segments import Place

_OWN = "+"  # marks blocks of new tasks that no existing segment computes as a whole


@dataclass(frozen=True)
class Missed:
    """What a new task could share if a cut was moved: blocks that it has in common with an existing task, inside of a segment."""

    blocks: int
    macs: int


def keep_segments(existing: Existing, new: Iterable[Chain]) -> CutOptions:
    """Return the options under which `make_sharing_plan` leaves every segment of `existing` as it is."""
    copies: dict[Place, str] = {place: run.segment for place, run in existing.places.items()}
    for chain in new:
        copies |= _fit(chain, existing.digests)
    return CutOptions("exact", also_cut=existing.cuts, copies=copies)


def missed_sharing(existing: Existing, options: CutOptions, chain: Chain) -> Missed:
    """Return what the new task `chain` computes itself under `options` although an existing task computes the same on its input."""
    known = {tap.address for other in existing.chains.values() for block in other.blocks for tap in block.outputs}
    missed = [block for block in chain.blocks if options.copies[chain.name, block.index] == _OWN and block.end.address in known]
    return Missed(len(missed), sum(block.macs for block in missed))


def _fit(chain: Chain, segments: Mapping[str, tuple[str, ...]]) -> dict[Place, str]:
    """Return for each block the existing segment that computes it there, or the mark of a block of its own."""
    uses = Counter(tap.address for block in chain.blocks for tap in block.inputs)
    uses.update(tap.address for tap in chain.outputs)
    copies: dict[Place, str] = {}
    index = 0
    while index < len(chain.blocks):
        fitting = [name for name, digests in segments.items() if _fits(chain.blocks[index : index + len(digests)], digests, uses)]
        best = max(fitting, key=lambda name: (len(segments[name]), name), default=None)
        length = len(segments[best]) if best else 1
        copies |= {(chain.name, place): best or _OWN for place in range(index, index + length)}
        index += length
    return copies


def _fits(blocks: tuple[Block, ...], digests: tuple[str, ...], uses: Counter[str]) -> bool:
    """Whether `blocks` are a segment with these `digests`: in one line, and with no other way out before its end."""
    if tuple(block.digest for block in blocks) != digests:
        return False
    return all(left.end == right.start and uses[left.end.address] == 1 for left, right in pairwise(blocks))
