"""The sharing plan: which segments a set of task models comes down to, and their names. A pure function of the digest chains."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from exporter.graph.chain import Chain, Tap, span_of
from exporter.graph.digests import combined_digest, content_of
from exporter.sharing.choose import CutLeftOut, CutOptions, choose_cuts
from exporter.sharing.occurrence import BlockRun, Key, Layout, Occurrence
from exporter.sharing.reasons import Ways, explain_cut, explain_cut_left_out, explain_several_shapes

DigestOf = Callable[[Occurrence], str]


@dataclass(frozen=True)
class PlannedSegment:
    """Blocks that become one model. `chain` names a network that contains them; `blocks`, `inputs` and `outputs` are as they are there.

    role: "trunk" (before every fork of the tasks that use it), "shared" (several different inputs), or a task's name.
    digest: of what it computes. reason: why there is a cut in front of it.
    """

    name: str
    role: str
    chain: str
    blocks: BlockRun
    inputs: tuple[Tap, ...]
    outputs: tuple[Tap, ...]
    digest: str
    reason: str = ""

    @property
    def content(self) -> str:
        """Return what tells it apart from segments that need a model of their own."""
        return content_of(self.digest, (tap.rows for tap in self.inputs))


@dataclass(frozen=True)
class PlannedStep:
    """A segment applied to the tensors `inputs`, giving the tensors `outputs`, in one task. blocks: what it is in the task's chain."""

    segment: str
    inputs: tuple[Tap, ...]
    outputs: tuple[Tap, ...]
    blocks: BlockRun = field(compare=False, repr=False)


@dataclass(frozen=True)
class SharingPlan:
    """Segments by name, and for each task its steps. `forks`: per task the number of blocks that it shares with the backbone's trunk.

    cuts_left_out: where tasks part or meet without a cut, a sentence each. several_shapes: which weights are in several segments because
    these take other shapes, a sentence or "".
    """

    segments: dict[str, PlannedSegment]
    tasks: dict[str, tuple[PlannedStep, ...]]
    forks: dict[str, int]
    cuts_left_out: tuple[str, ...] = ()
    several_shapes: str = ""


def make_sharing_plan(
    tasks: Sequence[Chain],
    backbone: Chain | None = None,
    options: CutOptions | None = None,
    there: Mapping[str, str] | None = None,
    digest_of: DigestOf | None = None,
) -> SharingPlan:
    """Return the plan for `tasks`, whose chains, and the backbone's, were made for each other (`exporter.graph.network`).

    The `backbone`, if given, decides cuts and names, as one more task would; blocks that only it has are not in the plan.
    there: the names that segments have already, with their contents. digest_of: of a segment's graph; without one, that of its blocks.
    Raises TooFewSegments when `options.max_segments` cannot be reached.
    """
    options = options or CutOptions()
    chains = [*tasks, *([backbone] if backbone else [])]
    # The order of the tasks decides nothing.
    chains.sort(key=lambda chain: chain.name)
    layout, left_out = choose_cuts(chains, {chain.name for chain in tasks}, options)
    segments = _Describer(tasks, backbone, layout, options, digest_of or digest_of_blocks).segments(there or {})
    steps = {
        chain.name: tuple(
            PlannedStep(segments[part.key].name, part.taken, part.given, part.blocks) for part in layout[chain.name]
        )
        for chain in tasks
    }
    forks = _forks(tasks, backbone)
    sentences = tuple(explain_cut_left_out(cut, options) for cut in left_out if _concerns(cut, tasks))
    again = explain_several_shapes(segment.blocks for segment in segments.values())
    return SharingPlan({segment.name: segment for segment in segments.values()}, steps, forks, sentences, again)


def common_blocks(left: Chain, right: Chain) -> int:
    """Return the number of blocks of `left` that compute what `right` computes, too, on the same inputs."""
    known = _known(right)
    return sum(address in known for address in _ends(left))


def _ends(chain: Chain) -> list[str]:
    """Return the addresses of what the blocks of the network by itself give; of one that is divided here, what its first part gives."""
    firsts: dict[tuple[int, int], str] = {}
    for block in chain.blocks:
        firsts.setdefault(block.places, block.end.address)
    return list(firsts.values())


def _known(chain: Chain) -> Collection[str]:
    return frozenset[str]().union(*chain.values) or {tap.address for block in chain.blocks for tap in block.outputs}


class _Describer:
    """Names the segments of a layout and says what each is."""

    def __init__(
        self, tasks: Sequence[Chain], backbone: Chain | None, layout: Layout, options: CutOptions, digest_of: DigestOf
    ) -> None:
        self._layout, self._options, self._digest_of = layout, options, digest_of
        self._tasks = [chain.name for chain in tasks]
        self._ways = Ways(layout, self._tasks)
        self._backbone_taps = backbone.taps if backbone else frozenset[str]()
        self._backbone_digests = {block.digest for block in backbone.blocks} if backbone else set[str]()
        self._backbone = backbone
        self._users: dict[Key, set[str]] = defaultdict(set)
        self._inputs: dict[Key, set[tuple[str, ...]]] = defaultdict(set)
        for name in self._tasks:
            for occurrence in layout[name]:
                self._users[occurrence.key].add(name)
                self._inputs[occurrence.key].add(occurrence.inputs)

    def segments(self, there: Mapping[str, str]) -> dict[Key, PlannedSegment]:
        """Return the tasks' segments by key; each is described as it is where it comes earliest, and `there` are names given."""
        found: dict[Key, list[Occurrence]] = defaultdict(list)
        for name in self._tasks:
            for occurrence in self._layout[name]:
                found[occurrence.key].append(occurrence)
        earliest = [min(places, key=lambda place: (span_of(place.blocks), place.chain)) for places in found.values()]
        described = {part.key: self._segment("", part) for part in earliest}
        wanted = {key: _name(segment) for key, segment in described.items()}
        names = _choose_names(wanted, {key: segment.content for key, segment in described.items()}, there)
        return {key: replace(segment, name=names[key]) for key, segment in described.items()}

    def _segment(self, name: str, part: Occurrence) -> PlannedSegment:
        reason = explain_cut(part, self._ways, self._options)
        digest = self._digest_of(part)
        return PlannedSegment(name, self._role(part), part.chain, part.blocks, part.taken, part.given, digest, reason)

    def _role(self, occurrence: Occurrence) -> str:
        users = self._users[occurrence.key]
        if len(self._inputs[occurrence.key]) > 1:
            return "shared"
        if all(block.end.address in self._backbone_taps for block in occurrence.blocks):
            return "trunk"
        if len(users) > 1:
            return "trunk" if self._backbone is None else "shared"
        if all(block.digest in self._backbone_digests for block in occurrence.blocks):
            return "shared"
        return min(users).partition("@")[0]  # an @ tells versions of one task apart


def _concerns(cut: CutLeftOut, tasks: Collection[Chain]) -> bool:
    return any(cut.tap.address in chain.taps for chain in tasks)


def _forks(tasks: Sequence[Chain], backbone: Chain | None) -> dict[str, int]:
    """Return for each of `tasks` how many blocks it has in common with the backbone, or, without one, with another task at most."""
    if backbone:
        return {chain.name: common_blocks(chain, backbone) for chain in tasks}
    ends = [set(_ends(chain)) for chain in tasks]
    places = {address: place for place, address in enumerate(dict.fromkeys(address for found in ends for address in found))}
    own = [_bits(found, places) for found in ends]
    known = [_bits(places.keys() & _known(chain), places) for chain in tasks]
    return {
        chain.name: max(((own[index] & bits).bit_count() for other, bits in enumerate(known) if other != index), default=0)
        for index, chain in enumerate(tasks)
    }


def _bits(addresses: Iterable[str], places: Mapping[str, int]) -> int:
    return sum(1 << places[address] for address in addresses)


def digest_of_blocks(part: Occurrence) -> str:
    """Return the digest of the blocks of `part` and of how they feed each other."""
    if all(after.inputs == before.outputs for before, after in pairwise(part.blocks)):
        return combined_digest([block.digest for block in part.blocks])
    places = {tap.address: f"input {index}" for index, tap in enumerate(part.taken)}
    lines = []
    for block in part.blocks:
        lines.append(" ".join([block.digest, *(places[tap.address] for tap in block.inputs)]))
        places |= {tap.address: f"{len(lines)}.{index}" for index, tap in enumerate(block.outputs)}
    lines.append(" ".join(places[tap.address] for tap in part.given))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _name(segment: PlannedSegment) -> str:
    """Return the name of a segment by what it is for, where it is and what it computes."""
    first, last = span_of(segment.blocks)
    return f"{segment.role}-{first:02d}-{last:02d}-{segment.digest[:8]}"


def _choose_names(wanted: Mapping[Key, str], contents: Mapping[Key, str], there: Mapping[str, str]) -> dict[Key, str]:
    """Return the name of each segment. wanted: what it would be called if it was alone. there: names that are given, with contents.

    A segment that is there goes by its name: a copy that is called like one is that one, others are found by their content, one for
    one. Where two that differ would have one name (they have the same weights, but take other shapes), the name tells that, too.
    """
    names = {key: key.copy for key in wanted if there.get(key.copy) == contents[key]}
    names |= {key: name for key, name in wanted.items() if key not in names and there.get(name) == contents[key]}
    free: dict[str, list[str]] = defaultdict(list)
    for name in sorted(there.keys() - names.values(), reverse=True):
        free[there[name]].append(name)
    for key in sorted(wanted.keys() - names.keys(), key=lambda key: (wanted[key], key)):
        names[key] = free[contents[key]].pop() if free[contents[key]] else _new_name(key, wanted, contents, there)
    return names


def _new_name(key: Key, wanted: Mapping[Key, str], contents: Mapping[Key, str], there: Mapping[str, str]) -> str:
    name, content = wanted[key], contents[key]
    others = {contents[other] for other, taken in wanted.items() if taken == name} | {there.get(name, content)}
    if others == {content}:
        return name
    return f"{name.rpartition('-')[0]}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
