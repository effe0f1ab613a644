"""Segments of a set of networks: the maximal paths of the block graph. Pure functions of the digest chains.

Take every block that occurs as a node of a graph, with an edge where two blocks follow each other in some network. The segments are
the maximal paths of that graph that nothing enters or leaves on the way (the construction that genome assembly calls unitigs). So

- what several networks compute on the same input is a common prefix of their chains: the trunk, run once;
- what they compute with the same weights on different inputs (a frozen suffix) is one segment: stored once, run on stacked streams;
- every block is in exactly one segment, so no weight is stored twice, and there is no cut that sharing does not need.

A block that occurs again after itself counts as another block: its first occurrences are compared with first occurrences. So does one
that takes another shape (the same activation at another resolution): what was written for one shape does not take another.
A block that takes several tensors begins a segment, so that only the first block of a segment takes more than the tap before it.
Where ways meet in front of a block without MACs that makes less of what it takes (a QuantizeLinear), each way has it at its end instead.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from exporter.graph.chain import Block, Chain

BlockRun = tuple[Block, ...]
Place = tuple[str, int]  # a chain's name, and a block's index in it
Copies = Mapping[Place, str]


class Key(NamedTuple):
    """What tells blocks apart. depth: how many equal blocks precede it on its way. copy: "", or which copy of it this one is."""

    content: str
    depth: int
    copy: str = ""

    @property
    def text(self) -> str:
        """Return the key as one word."""
        return f"{self.content}.{self.depth}{self.copy}"


@dataclass(frozen=True)
class Occurrence:
    """A segment as it occurs in a chain: which one (the key of its first block), and its blocks there."""

    key: Key
    chain: str
    blocks: BlockRun = field(repr=False)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the addresses of what it takes."""
        return tuple(tap.address for tap in self.blocks[0].inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the addresses of what it gives."""
        return tuple(tap.address for tap in self.blocks[-1].outputs)


Layout = dict[str, list[Occurrence]]  # the segments of each chain by its name


class SegmentFinder:
    """Finds the segments of the same chains again and again, with other copies and cuts."""

    def __init__(self, chains: Sequence[Chain]) -> None:
        self._chains = chains
        self._depths = {chain.name: _depths(chain) for chain in chains}
        self._reducing = {chain.name: [*_reducing(chain)] for chain in chains}

    def find(self, copies: Copies, also_cut: Collection[str] = ()) -> Layout:
        """Return the segments of each chain by its name, each after those whose outputs it takes.

        copies: blocks that count as copies of their own, although an equal block occurs elsewhere (weights are then stored again).
        also_cut: addresses of taps that become cuts although no sharing needs them.
        """
        keys = {chain.name: self._keys(chain, copies) for chain in self._chains}
        self._meet_where_less_crosses(keys, also_cut)
        starts = _starts(self._chains, keys, also_cut)
        return {chain.name: list(_occurrences(chain, keys[chain.name], starts)) for chain in self._chains}

    def _keys(self, chain: Chain, copies: Copies) -> list[Key]:
        depths = self._depths[chain.name]
        return [
            Key(block.content, depth, copies.get((chain.name, block.index), ""))
            for block, depth in zip(chain.blocks, depths, strict=True)
        ]

    def _meet_where_less_crosses(self, keys: Mapping[str, list[Key]], also_cut: Collection[str]) -> None:
        """Give each way a copy of a block that makes less of where ways meet."""
        met: dict[Key, list[tuple[Chain, int, Key]]] = defaultdict(list)
        for chain in self._chains:
            own = keys[chain.name]
            for before, index in self._reducing[chain.name]:
                if own[before].copy == own[index].copy and chain.blocks[index].start.address not in also_cut:
                    met[own[index]].append((chain, index, own[before]))
        for key, ways in met.items():
            if len({source for *_, source in ways}) > 1:
                for chain, index, source in ways:
                    keys[chain.name][index] = key._replace(copy=f"{key.copy}<{source.text}")


def _depths(chain: Chain) -> list[int]:
    """Return for each block how many equal ones precede it on its way, at most."""
    producers = {tap.address: block.index for block in chain.blocks for tap in block.outputs}
    ahead: list[Counter[str]] = []  # per block: how often each content occurs on the way to it, at most
    for block in chain.blocks:
        before: Counter[str] = Counter()
        for index in {producers[tap.address] for tap in block.inputs if tap.address in producers}:
            before |= ahead[index] | Counter({chain.blocks[index].content: ahead[index][chain.blocks[index].content] + 1})
        ahead.append(before)
    return [before[block.content] for before, block in zip(ahead, chain.blocks, strict=True)]


def _starts(chains: Sequence[Chain], keys: Mapping[str, Sequence[Key]], also_cut: Collection[str]) -> set[Key]:
    """Return the blocks that begin a segment: several ways lead to them, or the block before them has several ways on."""
    before: dict[Key, set[Key | None]] = defaultdict(set)
    after: dict[Key, set[Key | None]] = defaultdict(set)
    starts: set[Key] = set()
    for chain in chains:
        producers = {tap.address: keys[chain.name][block.index] for block in chain.blocks for tap in block.outputs}
        for block, key in zip(chain.blocks, keys[chain.name], strict=True):
            before[key].add(producers.get(block.start.address))
            for tap in block.inputs:
                if tap.address in producers:
                    after[producers[tap.address]].add(key)
            if len(block.inputs) > 1 or block.start.address in also_cut:
                starts.add(key)
        for tap in chain.outputs:
            after[producers[tap.address]].add(None)
    for key, sources in before.items():
        if len(sources) > 1 or any(source is None or len(after[source]) > 1 for source in sources):
            starts.add(key)
    return starts


def _reducing(chain: Chain) -> Iterator[tuple[int, int]]:
    """Yield the blocks that make less of what they alone take for next to nothing, by their index, each after that of who makes it."""
    producers = {tap.address: block.index for block in chain.blocks for tap in block.outputs}
    taken = Counter(tap.address for block in chain.blocks for tap in block.inputs)
    taken.update(tap.address for tap in chain.outputs)
    for block in chain.blocks:
        if block.makes_less and taken[block.start.address] == 1 and block.start.address in producers:
            yield producers[block.start.address], block.index


def _occurrences(chain: Chain, keys: Sequence[Key], starts: Collection[Key]) -> Iterator[Occurrence]:
    runs: dict[str, tuple[Key, list[Block]]] = {}  # by the address of the tap that a run ends in so far
    for block, key in zip(chain.blocks, keys, strict=True):
        run = (key, [block]) if key in starts else runs.pop(block.start.address)
        if run[1][-1] is not block:
            run[1].append(block)
        runs[block.end.address] = run
    # A run's first block takes nothing that is made after it began: the order of first blocks is an order in which all can run.
    for key, blocks in sorted(runs.values(), key=lambda run: run[1][0].index):
        yield Occurrence(key, chain.name, tuple(blocks))
