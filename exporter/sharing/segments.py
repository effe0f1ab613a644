"""Segments of a set of networks: blocks that always occur together. Pure functions of the chains.

A block that computes the same from the same tensors in several networks is one block, wherever it occurs: it is run once. One that computes
the same from other tensors is another run of the same model: its weights are stored once. Two blocks of which one takes what the other
gives are joined if that is so wherever one of them occurs, and the same outputs need both. What is joined is a segment. So

- what several networks compute on the same inputs is one segment with as many outputs as others take of it: the trunk, run once;
- what they compute with the same weights on different inputs (a frozen suffix, twin towers) is one segment: stored once, run on
  stacked streams;
- every block is in exactly one segment, so no weight of a block is stored twice, and there is no cut that sharing does not need.

A block that occurs again after itself counts as another block: its first occurrences are compared with first occurrences. So does one
that takes another shape (the same activation at another resolution): what was written for one shape does not take another. And one
without weights, or that makes less of what it takes (a QuantizeLinear), is the same block only behind the same blocks.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from exporter.graph.chain import Chain
from exporter.sharing.joining import Blocks, Joined
from exporter.sharing.occurrence import Copies, Key, Layout, Occurrence


class SegmentFinder:
    """Finds the segments of the same chains again and again, with other copies and cuts."""

    def __init__(self, chains: Sequence[Chain]) -> None:
        self._chains = chains
        self._depths = {chain.name: _depths(chain) for chain in chains}
        self._users = _users(chains)
        # The last copies of a chain, and its keys with them.
        self._known_keys: dict[str, tuple[Mapping[int, str], list[Key]]] = {}

    def find(self, copies: Copies, also_cut: Collection[str] = ()) -> Layout:
        """Return the segments of each chain by its name, each after those whose outputs it takes.

        copies: blocks that count as copies of their own, although an equal block occurs elsewhere (weights are then stored again).
        also_cut: addresses of taps that become cuts although no sharing needs them.
        """
        return self._joined(copies, also_cut).layout()

    def models(self, copies: Copies, also_cut: Collection[str] = ()) -> list[tuple[Occurrence, int]]:
        """Return each segment that `find` finds, as it is in one place, and on how many different tensors it runs."""
        return [*self._joined(copies, also_cut).models()]

    def _joined(self, copies: Copies, also_cut: Collection[str]) -> Joined:
        of_chain: dict[str, dict[int, str]] = {chain.name: {} for chain in self._chains}
        for (name, index), copy in copies.items():
            if name in of_chain:
                of_chain[name][index] = copy
        keys = {chain.name: self._keys(chain, of_chain[chain.name]) for chain in self._chains}
        blocks = Blocks(self._chains, keys, self._users)
        apart: dict[Key, tuple[int, ...]] = {}
        while (joined := Joined(blocks, also_cut, apart)).broken:
            for key, rank in joined.broken.items():
                apart[key] = (*apart.get(key, ()), rank)
        return joined

    def _keys(self, chain: Chain, copies: Mapping[int, str]) -> list[Key]:
        known = self._known_keys.get(chain.name)
        if known is None or known[0] != copies:
            known = self._known_keys[chain.name] = copies, self._new_keys(chain, copies)
        return known[1]

    def _new_keys(self, chain: Chain, copies: Mapping[int, str]) -> list[Key]:
        depths = self._depths[chain.name]
        found: dict[str, Key] = {}  # by the addresses of taps: what makes them
        keys = []
        for block, depth in zip(chain.blocks, depths, strict=True):
            content = block.content
            if not block.segment and (block.makes_less or not block.weight_bytes):
                before = [found[tap.address].text if tap.address in found else tap.address for tap in block.inputs]
                content = hashlib.sha256("\n".join([content, *before]).encode()).hexdigest()
            keys.append(Key(content, depth, copies.get(block.index, "")))
            found.update({tap.address: keys[-1] for tap in block.outputs})
        return keys


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


def _users(chains: Sequence[Chain]) -> dict[str, list[int]]:
    """Return for each block of each chain the answers of all chains that need it there, as bits."""
    found: dict[str, list[int]] = {}
    answers = 0
    for chain in chains:
        users = found[chain.name] = [0] * len(chain.blocks)
        for wanted in chain.answers or (tuple(tap.address for tap in chain.outputs),):
            needed = set(wanted)
            for block in reversed(chain.blocks):
                if not needed.isdisjoint(tap.address for tap in block.outputs):
                    users[block.index] |= 1 << answers
                    needed.update(tap.address for tap in block.inputs)
            answers += 1
    return found
