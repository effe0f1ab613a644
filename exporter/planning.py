"""The sharing plan: which segments a set of task models comes down to. A pure function of the digest chains.

Take every block that occurs as a node of a graph, with an edge where two blocks follow each other in some network. The segments are
the maximal paths of that graph that nothing enters or leaves on the way (the construction that genome assembly calls unitigs). So

- what several networks compute on the same input is a common prefix of their chains: the trunk, run once;
- what they compute with the same weights on different inputs (a frozen suffix) is one segment: stored once, run on stacked streams;
- every block is in exactly one segment, so no weight is stored twice, and there is no cut that sharing does not need.

A block that occurs more than once in one chain counts as as many blocks: its first occurrences are compared with first occurrences.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from exporter.chain import Block, Chain, Tap
from exporter.digests import chain_digest

_END = ("", -1)
Run = tuple[Block, ...]
Key = tuple[str, int]  # a block's digest, and how many equal blocks precede it in its chain


@dataclass(frozen=True)
class PlannedSegment:
    """Consecutive blocks that become one model. `chain` names a network that contains them, `blocks` as they are there.

    role: "trunk" (before every fork of the tasks that use it, one input), "shared" (several different inputs), or a task's name.
    """

    name: str
    role: str
    chain: str
    blocks: tuple[Block, ...]

    @property
    def digest(self) -> str:
        """Return the digest of all blocks in order."""
        return _digest(self.blocks)


@dataclass(frozen=True)
class PlannedStep:
    """A segment applied to the tensor `start`, giving the tensor `end`, in one task."""

    segment: str
    start: Tap
    end: Tap


@dataclass(frozen=True)
class SharingPlan:
    """Segments by name, and for each task its steps. `forks`: per task the number of blocks that it shares with the backbone's trunk."""

    segments: dict[str, PlannedSegment]
    tasks: dict[str, tuple[PlannedStep, ...]]
    forks: dict[str, int]


def make_sharing_plan(tasks: Sequence[Chain], backbone: Chain | None = None) -> SharingPlan:
    """Return the plan for `tasks`. The `backbone`, if given, decides cuts and names; blocks that only it has are not in the plan."""
    starts = _segment_starts([*tasks, *([backbone] if backbone else [])])
    runs = {chain.name: list(_runs(chain, starts)) for chain in tasks}
    segments = _name_segments(runs, _users(tasks), backbone)
    steps = {name: tuple(PlannedStep(segments[key].name, run[0].start, run[-1].end) for key, run in runs[name]) for name in runs}
    by_name = {segment.name: segment for segment in segments.values()}
    return SharingPlan(by_name, steps, {chain.name: _fork(chain, tasks, backbone) for chain in tasks})


def common_prefix(left: Chain, right: Chain) -> int:
    """Return the number of blocks that two chains share from the input on."""
    pairs = zip(left.blocks, right.blocks, strict=False)
    return sum(a.end.address == b.end.address for a, b in pairs)  # an address covers everything before it: no gap is possible


def _keys(chain: Chain) -> list[Key]:
    seen: Counter[str] = Counter()
    keys = []
    for block in chain.blocks:
        keys.append((block.digest, seen[block.digest]))
        seen[block.digest] += 1
    return keys


def _segment_starts(chains: Sequence[Chain]) -> set[Key]:
    """Return the blocks that begin a segment: several ways lead to them, or the block before them has several ways on."""
    before: dict[Key, set[Key]] = defaultdict(set)
    after: dict[Key, set[Key]] = defaultdict(set)
    for chain in chains:
        keys = [_END, *_keys(chain), _END]
        for left, right in pairwise(keys):
            after[left].add(right)
            before[right].add(left)
    return {key for key, sources in before.items() if len(sources) > 1 or any(len(after[source]) > 1 for source in sources)}


def _runs(chain: Chain, starts: set[Key]) -> Iterator[tuple[Key, Run]]:
    """Yield the segments of `chain` in order, each with the key of its first block, which tells segments apart."""
    pairs = list(zip(_keys(chain), chain.blocks, strict=True))
    bounds = [index for index, (key, _) in enumerate(pairs) if index == 0 or key in starts]
    for begin, end in pairwise([*bounds, len(pairs)]):
        yield pairs[begin][0], tuple(block for _, block in pairs[begin:end])


@dataclass(frozen=True)
class _Use:
    """Who uses a block: the tasks, and on how many different inputs."""

    tasks: frozenset[str]
    inputs: frozenset[str]


def _users(tasks: Sequence[Chain]) -> dict[str, _Use]:
    names: dict[str, set[str]] = defaultdict(set)
    inputs: dict[str, set[str]] = defaultdict(set)
    for chain in tasks:
        for block in chain.blocks:
            names[block.digest].add(chain.name)
            inputs[block.digest].add(block.start.address)
    return {digest: _Use(frozenset(names[digest]), frozenset(inputs[digest])) for digest in names}


def _name_segments(
    runs: Mapping[str, list[tuple[Key, Run]]], users: dict[str, _Use], backbone: Chain | None
) -> dict[Key, PlannedSegment]:
    """Return the segments by the key of their first block; each is described as it is where it comes earliest."""
    found: dict[Key, list[tuple[int, str, Run]]] = defaultdict(list)
    for chain, chain_runs in runs.items():
        for key, run in chain_runs:
            found[key].append((run[0].index, chain, run))
    return {
        key: _segment(chain, run, users, backbone) for key, places in found.items() for _, chain, run in [min(places, key=_place)]
    }


def _place(place: tuple[int, str, Run]) -> tuple[int, str]:
    return place[0], place[1]


def _segment(chain: str, run: Run, users: dict[str, _Use], backbone: Chain | None) -> PlannedSegment:
    role = _role(run, users[run[0].digest], backbone)
    name = f"{role}-{run[0].index:02d}-{run[-1].index:02d}-{_digest(run)[:8]}"
    return PlannedSegment(name, role, chain, run)


def _role(run: Run, use: _Use, backbone: Chain | None) -> str:
    if len(use.inputs) > 1:
        return "shared"
    on_backbone = backbone is not None and run[0].start.address in {block.start.address for block in backbone.blocks}
    frozen = backbone is not None and run[0].digest in {block.digest for block in backbone.blocks}
    if on_backbone and frozen:
        return "trunk"
    if len(use.tasks) > 1:
        return "trunk" if backbone is None else "shared"
    return "shared" if frozen else min(use.tasks)


def _fork(chain: Chain, tasks: Sequence[Chain], backbone: Chain | None) -> int:
    others = [backbone] if backbone else [other for other in tasks if other is not chain]
    return max((common_prefix(chain, other) for other in others), default=0)


def _digest(blocks: Sequence[Block]) -> str:
    digest = blocks[0].digest
    for block in blocks[1:]:
        digest = chain_digest(digest, block.digest)
    return digest
