"""Which segments may run as one session: small ones that take the same tensors, in blocks that change little as tasks come and go."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from contract.repository.model import Repository, Segment
from contract.repository.unite import Tensors
from contract.volume import is_free
from serving.engines.scheduling.bundle_step import Bundle, Member

MOST_MEMBERS = 64
MOST_BYTES = 16_000_000  # of the weights of a block: what is written and read when one of its segments changes
_MOST_MACS = 1_000_000  # what takes longer gains nothing: a step costs as much as a million or two


@dataclass(eq=False)
class Block:
    """Segments that are to be one bundle. bytes: of their weights."""

    inputs: Tensors
    members: dict[str, Member] = field(default_factory=dict)
    bytes: int = 0

    def has_room_for(self, member: Member) -> bool:
        """Return whether `member` fits."""
        return len(self.members) < MOST_MEMBERS and self.bytes + member.bytes <= MOST_BYTES

    def put(self, member: Member) -> None:
        """Take `member` in."""
        self.members[member.segment] = member
        self.bytes += member.bytes

    def drop(self, segment: str) -> None:
        """Let `segment` go."""
        self.bytes -= self.members.pop(segment).bytes

    def bundle(self) -> Bundle | None:
        """Return what it is as a bundle, named by its segments, which never change; None: it has not two."""
        if len(self.members) < 2:
            return None
        digest = hashlib.sha256("\n".join(self.members).encode()).hexdigest()[:16]
        return Bundle(f"bundle-{digest}", self.inputs, tuple(self.members.values()))


class Partition:
    """The blocks of the segments that are served. A segment stays in its block until it goes; a new one takes a place that is free."""

    def __init__(self) -> None:
        self._blocks: list[Block] = []
        self._of: dict[str, Block] = {}
        self._excluded: set[str] = set()

    def __getitem__(self, segment: str) -> Block:
        """Return the block of `segment`. Raises KeyError."""
        return self._of[segment]

    @property
    def targets(self) -> Mapping[str, Bundle]:
        """Return what each segment is to run in."""
        bundles = {id(block): block.bundle() for block in self._blocks}
        return {segment: bundle for segment, block in self._of.items() if (bundle := bundles[id(block)]) is not None}

    def add(self, repository: Repository) -> None:
        """Find places for the segments of `repository` that may run with others and have none."""
        for inputs, member in _candidates(repository):
            if member.segment in self._of or member.segment in self._excluded:
                continue
            fitting = (block for block in self._blocks if block.inputs == inputs and block.has_room_for(member))
            block = next(fitting, None)
            if block is None:
                block = Block(inputs)
                self._blocks.append(block)
            block.put(member)
            self._of[member.segment] = block

    def remove(self, segments: Collection[str]) -> None:
        """Take these out of their blocks."""
        for segment in segments:
            self._excluded.discard(segment)
            block = self._of.pop(segment, None)
            if block is not None:
                block.drop(segment)
        self._blocks = [block for block in self._blocks if block.members]

    def exclude(self, segment: str) -> None:
        """Let `segment`, while it is served, have no place: it cannot run with others."""
        self.remove([segment])
        self._excluded.add(segment)


def _candidates(repository: Repository) -> Iterator[tuple[Tensors, Member]]:
    """Yield the segments that may run with others, each with what it takes in all tasks."""
    taken: dict[str, set[Tensors]] = {}
    for task in repository.tasks.values():
        for step in task.steps:
            taken.setdefault(step.segment, set()).add(tuple(step.inputs))
    for name, inputs in taken.items():
        segment = repository.segments[name]
        if len(inputs) == 1 and _may_be_bundled(segment):
            yield next(iter(inputs)), Member(name, len(segment.outputs), segment.macs, segment.weight_bytes)


def _may_be_bundled(segment: Segment) -> bool:
    tensors = (*segment.inputs, *segment.outputs)
    return (
        segment.plain is None
        and not segment.is_coupled
        and 0 < segment.macs < _MOST_MACS
        and segment.weight_bytes <= MOST_BYTES
        and all(spec.dtype == "FP32" for spec in tensors)
        and not is_free(tensors)
    )
