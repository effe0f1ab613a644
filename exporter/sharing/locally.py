"""What segments cost when some of their blocks get other keys, found from the segments around these blocks alone.

Whether two blocks are joined depends on where both occur, and on nothing else. So a change concerns the segments of the blocks that change
and those that touch them; all others stay, and cost what they cost. Where a block must be kept apart (`Joined.broken`), that depends on
all others; then the answer is None, and all segments have to be found anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from math import fsum

from exporter.graph.chain import Chain
from exporter.sharing.joining import Blocks, Joined
from exporter.sharing.occurrence import Key, Occurrence

CostOf = Callable[[Occurrence, int], float]  # of a segment, and the number of its streams
NewKeys = Mapping[str, Mapping[int, Key]]  # by chain, and by the block's index in it
_Stream = tuple[bool, int]  # whether it is in the part that is looked at, and its number there, or in the whole


class LocalCosts:
    """What all segments of `joined` cost together, and what they would cost after a change.

    users: of each chain's blocks, as bits. also_cut: as for `joined`.
    """

    def __init__(self, joined: Joined, users: Mapping[str, Sequence[int]], also_cut: Collection[str], cost_of: CostOf) -> None:
        self._joined, self._users, self._also_cut, self._cost_of = joined, users, also_cut, cost_of
        self._blocks = joined.blocks
        self._chains = {chain.name: chain for chain in self._blocks.chains}
        self._costs = {segment: cost_of(*model) for segment, model in joined.models().items()}
        self.total = fsum(self._costs.values())

    def after(self, change: NewKeys) -> float | None:
        """Return what all segments cost after `change`, in seconds; None where that cannot be told from a part of them."""
        if self._joined.apart:
            return None
        segments = self._affected(change)
        members = {number for segment in segments for stream in self._joined.streams_of[segment] for number in stream}
        numbers = self._touched(members)
        around = {self._blocks.keys[number] for number in numbers - members}
        part = Joined(self._part(change, numbers), self._also_cut, {key: (place,) for place, key in enumerate(around)})
        if part.broken or self._has_circle(part, around, {self._joined.stream_of(number) for number in members}):
            return None
        inside = {part.segment_of(key) for key in part.blocks.by_key if key not in around}
        others = (cost for segment, cost in self._costs.items() if segment not in segments)
        return fsum((*others, *(self._cost_of(*model) for model in part.models(inside).values())))

    def _affected(self, change: NewKeys) -> set[Key]:
        """Return the segments that may become others: those of the blocks that change, and those that touch them."""
        blocks = self._blocks
        numbers = {blocks.at[name][index] for name, keys in change.items() for index in keys}
        for key in {key for keys in change.values() for key in keys.values()}:
            numbers.update(blocks.by_key.get(key, ()))
        return {self._joined.segment_of(blocks.keys[number]) for number in self._touched(numbers)}

    def _touched(self, numbers: Collection[int]) -> set[int]:
        """Return `numbers`, and those of the blocks that give them something or take something of them."""
        found = set(numbers)
        for number in numbers:
            found.update(self._blocks.makers[number], self._blocks.takers[number])
        return found

    def _part(self, change: NewKeys, numbers: Iterable[int]) -> Blocks:
        """Return the blocks `numbers`, wherever they occur, with the keys that they get."""
        places: dict[str, list[int]] = defaultdict(list)
        for number in numbers:
            for name, index in self._blocks.places[number]:
                places[name].append(index)
        chains, keys, users = list[Chain](), dict[str, list[Key]](), dict[str, list[int]]()
        for name, indexes in places.items():
            chain, at, new = self._chains[name], self._blocks.at[name], change.get(name, {})
            indexes.sort()
            chains.append(replace(chain, blocks=tuple(chain.blocks[index] for index in indexes)))
            keys[name] = [new[index] if index in new else self._blocks.keys[at[index]] for index in indexes]
            users[name] = [self._users[name][index] for index in indexes]
        return Blocks(chains, keys, users)

    def _has_circle(self, part: Joined, around: Collection[Key], gone: set[int]) -> bool:
        """Whether a way leaves a stream of `part` and comes back to it through what is `around`. gone: streams that `part` stands for."""
        nodes = {stream: self._node(part, stream, around) for stream in part.before}
        before: dict[_Stream, set[_Stream]] = defaultdict(set)
        for stream, makers in part.before.items():
            before[nodes[stream]].update(nodes[maker] for maker in makers)
        if self._rises and self._is_rising(part, nodes, before):
            return False
        pending = [number for inside, number in before if not inside and number not in gone]
        seen = set(pending)
        while pending:
            number = pending.pop()
            before[False, number].update((False, maker) for maker in self._joined.before[number] if maker not in gone)
            new = self._after[number] - seen - gone
            seen |= new
            pending += new
        return _is_circular(before)

    def _node(self, part: Joined, stream: int, around: Collection[Key]) -> _Stream:
        if part.blocks.keys[stream] not in around:
            return True, stream
        return False, self._joined.stream_of(self._number(part, stream))

    def _number(self, part: Joined, number: int) -> int:
        """Return the number in the whole of the block that has `number` in `part`."""
        name, index = part.blocks.places[number][0]
        return self._blocks.at[name][index]

    def _is_rising(self, part: Joined, nodes: Mapping[int, _Stream], before: Mapping[_Stream, Collection[_Stream]]) -> bool:
        """Whether streams of `part` and around it are all behind all of what they take something of, which no way back could be."""
        levels = {
            node: _span(self._levels[self._number(part, number)] for number in part.members[stream])
            if node[0]
            else self._levels_of[node[1]]
            for stream, node in nodes.items()
        }
        return all(levels[maker][1] < levels[node][0] for node, makers in before.items() for maker in makers if maker != node)

    @cached_property
    def _rises(self) -> bool:
        """Whether each stream is behind all of what it takes something of."""
        levels = self._levels_of
        return all(levels[maker][1] < levels[stream][0] for stream, makers in self._joined.before.items() for maker in makers)

    @cached_property
    def _levels(self) -> list[int]:
        """Return for each block how many are before it on the longest way."""
        levels = [0] * len(self._blocks.blocks)
        for number in self._joined.in_order:
            levels[number] = max((levels[maker] + 1 for maker in self._blocks.makers[number]), default=0)
        return levels

    @cached_property
    def _levels_of(self) -> dict[int, tuple[int, int]]:
        """Return the levels of each stream, the lowest and the highest."""
        return {stream: _span(self._levels[one] for one in numbers) for stream, numbers in self._joined.members.items()}

    @cached_property
    def _after(self) -> dict[int, set[int]]:
        """Return for each stream those that take its tensors."""
        after: dict[int, set[int]] = defaultdict(set)
        for stream, makers in self._joined.before.items():
            for maker in makers:
                after[maker].add(stream)
        return after


def _span(levels: Iterable[int]) -> tuple[int, int]:
    found = list(levels)
    return min(found), max(found)


def _is_circular(before: Mapping[_Stream, Collection[_Stream]]) -> bool:
    try:
        TopologicalSorter({node: set(makers) - {node} for node, makers in before.items()}).prepare()
    except CycleError:
        return True
    return False
