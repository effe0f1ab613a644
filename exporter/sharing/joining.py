"""Joins blocks that always occur together (`exporter.sharing.segments` says which)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from heapq import heapify, heappop, heappush
from typing import Any, Generic, TypeVar

from exporter.graph.chain import Block, Chain
from exporter.sharing.occurrence import Key, Layout, Occurrence, Place

_T = TypeVar("_T", bound=Hashable)


class Blocks:
    """All blocks of `chains`, each once for the tensors that it is applied to, by numbers.

    keys: of each chain's blocks. users: of each chain's blocks, as bits. at: the number of each chain's blocks. places: where each is.
    """

    def __init__(self, chains: Sequence[Chain], keys: Mapping[str, Sequence[Key]], users: Mapping[str, Sequence[int]]) -> None:
        self.chains, self.keys = chains, list[Key]()
        self.blocks: list[Block] = []
        self.users: list[int] = []
        self.makers: list[set[int]] = []
        self.takers: list[dict[int, set[str]]] = []  # by who takes: the addresses
        self.answers: list[set[str]] = []  # what of it is an answer
        self.at: dict[str, list[int]] = {}
        self.places: list[list[Place]] = []
        self._numbers: dict[tuple[Key, tuple[str, ...]], int] = {}
        for chain in chains:
            self._add(chain, keys[chain.name], users[chain.name])
        self.by_key: dict[Key, list[int]] = defaultdict(list)
        for number, key in enumerate(self.keys):
            self.by_key[key].append(number)

    def _add(self, chain: Chain, keys: Sequence[Key], users: Sequence[int]) -> None:
        made: dict[str, int] = {}
        self.at[chain.name] = places = []
        for block, key, needed in zip(chain.blocks, keys, users, strict=True):
            number = self._number(block, key)
            self.places[number].append((chain.name, block.index))
            self.users[number] |= needed
            for address in block.addresses:
                if (maker := made.get(address)) is not None:
                    self.makers[number].add(maker)
                    self.takers[maker].setdefault(number, set()).add(address)
            made.update({tap.address: number for tap in block.outputs})
            places.append(number)
        for tap in chain.outputs:
            if tap.address in made:
                self.answers[made[tap.address]].add(tap.address)

    def _number(self, block: Block, key: Key) -> int:
        identity = key, block.addresses
        if identity not in self._numbers:
            self._numbers[identity] = len(self.blocks)
            self.blocks.append(block)
            self.keys.append(key)
            self.users.append(0)
            self.places.append([])
            self.makers.append(set())
            self.takers.append({})
            self.answers.append(set())
        return self._numbers[identity]


class Joined:
    """The segments that come of joining `blocks`.

    also_cut: addresses of taps at which nothing is joined. apart: keys with different entries are not joined. levels: addresses of what
    a segment that runs on one stream alone gives, whether something takes it or not, if no other computes it, too.
    """

    def __init__(
        self,
        blocks: Blocks,
        also_cut: Collection[str],
        apart: Mapping[Key, tuple[int, ...]],
        levels: Collection[str] = frozenset(),
    ) -> None:
        made = Counter(address for block in blocks.blocks for tap in block.outputs if (address := tap.address) in levels)
        self._levels = {address for address, makers in made.items() if makers == 1}
        self.blocks, self._also_cut, self.apart = blocks, also_cut, apart
        self._segments, self._streams = _Union[Key](), _Union[int]()
        self._known_ports: dict[Key, tuple[list[Key], list[_Port], list[_Port]]] = {}
        pairs = {(blocks.keys[maker], blocks.keys[taker]) for maker, takers in enumerate(blocks.takers) for taker in takers}
        for first, second in pairs:
            if self._always_together(first, second):
                self._segments.join(first, second)
                for number in blocks.by_key[second]:
                    (maker,) = (maker for maker in blocks.makers[number] if blocks.keys[maker] == first)
                    self._streams.join(maker, number)

    def _always_together(self, first: Key, second: Key) -> bool:
        blocks = self.blocks
        if first == second or self.apart.get(first) != self.apart.get(second):
            return False
        for number in blocks.by_key[second]:
            makers = [maker for maker in blocks.makers[number] if blocks.keys[maker] == first]
            if len(makers) != 1 or blocks.users[makers[0]] != blocks.users[number] or blocks.blocks[number].segment:
                return False
            if not blocks.takers[makers[0]][number].isdisjoint(self._also_cut):
                return False
        for number in blocks.by_key[first]:
            if sum(blocks.keys[taker] == second for taker in blocks.takers[number]) != 1 or blocks.blocks[number].segment:
                return False
        return True

    @cached_property
    def broken(self) -> Mapping[Key, int]:
        """Return how to tell keys apart that must not be joined after all; empty where all is well.

        Streams of a segment must have the same blocks, and no way may leave a stream and come back to it.
        """
        segments: dict[Key, set[Key]] = defaultdict(set)
        for key in self.blocks.by_key:
            segments[self._segments.leader(key)].add(key)
        for stream in self.members.values():
            keys = [self.blocks.keys[number] for number in stream]
            segment = segments[self._segments.leader(keys[0])]
            if len(keys) != len(segment) or set(keys) != segment:
                return {key: place for place, key in enumerate(sorted(segment))}
        try:
            TopologicalSorter(self.before).prepare()
        except CycleError as error:
            circle = set(error.args[1])
            ranks = self._ranks(circle)
            return ranks if self._are_told_apart(ranks, segments.values()) else self._first_ranks(circle)
        return {}

    @cached_property
    def members(self) -> dict[int, list[int]]:
        """Return the blocks of each stream, by its number."""
        members: dict[int, list[int]] = defaultdict(list)
        for number in range(len(self.blocks.blocks)):
            members[self._streams.leader(number)].append(number)
        return members

    @cached_property
    def before(self) -> dict[int, set[int]]:
        """Return for each stream those whose tensors it takes."""
        leader = self._streams.leader
        return {
            stream: {leader(maker) for number in members for maker in self.blocks.makers[number]} - {stream}
            for stream, members in self.members.items()
        }

    def _ranks(self, streams: Collection[int]) -> dict[Key, int]:
        """Return for the blocks of `streams`, which are in a circle, how often a way to them left their stream and came back."""
        ranks: dict[Key, int] = {}
        for stream in streams:
            inside = set(self.members[stream])
            found: dict[int, int] = {}
            for number in self.in_order:
                before = [found[m] + (number in inside and m not in inside) for m in self.blocks.makers[number] if m in found]
                if before or number in inside:
                    found[number] = max(before, default=0)
            for number in inside:
                key = self.blocks.keys[number]
                ranks[key] = max(ranks.get(key, 0), found[number])
        return ranks

    def _are_told_apart(self, ranks: Mapping[Key, int], segments: Iterable[Collection[Key]]) -> bool:
        """Whether some of `segments` has blocks of several `ranks`."""
        return any(len({ranks[key] for key in segment if key in ranks}) > 1 for segment in segments)

    def _first_ranks(self, streams: Collection[int]) -> dict[Key, int]:
        """Return for the blocks of that stream of a circle in which the first block is: 1 behind what the others give, 0 before it.

        For circles that no way of blocks goes round: what a stream takes and what it gives need not depend on each other. The first
        block of all takes nothing of the circle, so that the stream falls into two.
        """
        circle = {number for stream in streams for number in self.members[stream]}
        first = next(number for number in self.in_order if number in circle)
        inside = set(self.members[self.stream_of(first)])
        behind = set[int]()
        for number in self.in_order:
            makers = self.blocks.makers[number]
            if not makers.isdisjoint(behind) or (number in inside and not makers.isdisjoint(circle - inside)):
                behind.add(number)
        return {self.blocks.keys[number]: int(number in behind) for number in inside}

    @cached_property
    def in_order(self) -> list[int]:
        """Return the blocks, each after those that give it something."""
        return list(TopologicalSorter(dict(enumerate(self.blocks.makers))).static_order())

    def layout(self) -> Layout:
        """Return the segments of each chain by its name, each after those whose outputs it takes."""
        return {chain.name: list(self._occurrences(chain)) for chain in self.blocks.chains}

    def _occurrences(self, chain: Chain) -> Iterator[Occurrence]:
        numbers = self.blocks.at[chain.name]
        places: dict[int, dict[Key, Block]] = defaultdict(dict)
        for block, number in zip(chain.blocks, numbers, strict=True):
            places[self._streams.leader(number)][self.blocks.keys[number]] = block
        firsts = {stream: min(block.index for block in found.values()) for stream, found in places.items()}
        for stream in _in_order(places, {stream: self.before[stream] & places.keys() for stream in places}, firsts.__getitem__):
            found = places[stream]
            order, taken, given = self._ports(self.segment_of(next(iter(found))))
            yield Occurrence(
                key=order[0],
                chain=chain.name,
                blocks=tuple(found[key] for key in order),
                taken=tuple(found[key].inputs[index] for key, index in taken),
                given=tuple(found[key].outputs[index] for key, index in given),
            )

    def models(self, segments: Collection[Key] | None = None) -> dict[Key, tuple[Occurrence, int]]:
        """Return `segments`, or all, as each is in one of its streams, and how many streams it has."""
        wanted = self.streams_of if segments is None else segments
        return {segment: (self._model(segment), len(self.streams_of[segment])) for segment in wanted}

    def _model(self, segment: Key) -> Occurrence:
        streams = self.streams_of[segment]
        order, taken, given = self._ports(segment)
        found = {self.blocks.keys[number]: self.blocks.blocks[number] for number in streams[0]}
        inputs = tuple(found[key].inputs[index] for key, index in taken)
        outputs = tuple(found[key].outputs[index] for key, index in given)
        return Occurrence(order[0], "", tuple(found[key] for key in order), inputs, outputs)

    def segment_of(self, key: Key) -> Key:
        """Return the segment that the blocks of `key` are in: the key of one of its blocks."""
        return self._segments.leader(key)

    def stream_of(self, number: int) -> int:
        """Return the stream that the block `number` is in."""
        return self._streams.leader(number)

    @cached_property
    def streams_of(self) -> dict[Key, list[list[int]]]:
        """Return the blocks of each stream of each segment."""
        streams: dict[Key, list[list[int]]] = defaultdict(list)
        for members in self.members.values():
            streams[self._segments.leader(self.blocks.keys[members[0]])].append(members)
        return streams

    def _ports(self, segment: Key) -> tuple[list[Key], list[_Port], list[_Port]]:
        """Return the blocks of `segment` in order, and which of their inputs and outputs are its own."""
        if segment not in self._known_ports:
            self._known_ports[segment] = self._ports_of(self.streams_of[segment])
        return self._known_ports[segment]

    def _ports_of(self, streams: list[list[int]]) -> tuple[list[Key], list[_Port], list[_Port]]:
        blocks = self.blocks
        by_key = [{blocks.keys[number]: number for number in members} for members in streams]
        first = by_key[0]
        before = {
            key: {blocks.keys[m] for m in blocks.makers[number] if m in set(first.values())} for key, number in first.items()
        }
        order = list(_in_order(first, before, lambda key: key))
        taken: dict[tuple[str, ...], _Port] = {}
        given: list[_Port] = []
        for key in order:
            block = blocks.blocks[first[key]]
            inner = {tap.address for m in blocks.makers[first[key]] if m in first.values() for tap in blocks.blocks[m].outputs}
            for index, tap in enumerate(block.inputs):
                if tap.address not in inner:
                    addresses = tuple(blocks.blocks[stream[key]].inputs[index].address for stream in by_key)
                    taken.setdefault((*addresses, str(index) if block.segment else ""), (key, index))
            given += [(key, i) for i in range(len(block.outputs)) if block.segment or self._leaves(key, i, by_key)]
        return order, list(taken.values()), given

    def _leaves(self, key: Key, index: int, streams: Sequence[Mapping[Key, int]]) -> bool:
        """Whether output `index` of the block `key` is used outside of one of `streams`."""
        for stream in streams:
            number = stream[key]
            address = self.blocks.blocks[number].outputs[index].address
            inside = set(stream.values())
            if address in self.blocks.answers[number] or (address in self._levels and len(streams) == 1):
                return True
            if any(address in taps and taker not in inside for taker, taps in self.blocks.takers[number].items()):
                return True
        return False


_Port = tuple[Key, int]  # a block of a segment, and which of its inputs or outputs


class _Union(Generic[_T]):
    """Sets that grow together."""

    def __init__(self) -> None:
        self._leaders: dict[_T, _T] = {}

    def leader(self, item: _T) -> _T:
        while (leader := self._leaders.get(item, item)) != item:
            self._leaders[item] = self._leaders.get(leader, leader)
            item = leader
        return item

    def join(self, left: _T, right: _T) -> None:
        self._leaders[self.leader(right)] = self.leader(left)


def _in_order(items: Iterable[_T], before: Mapping[_T, Collection[_T]], rank: Callable[[_T], Any]) -> Iterator[_T]:
    """Yield `items`, each after those `before` it, otherwise by `rank`."""
    waiting = {item: set(before[item]) for item in items}
    ready = [(rank(item), item) for item, needed in waiting.items() if not needed]
    after: dict[_T, list[_T]] = defaultdict(list)
    for item, needed in waiting.items():
        for other in needed:
            after[other].append(item)
    heapify(ready)
    while ready:
        _, item = heappop(ready)
        yield item
        for other in after[item]:
            waiting[other].discard(item)
            if not waiting[other]:
                heappush(ready, (rank(other), other))
