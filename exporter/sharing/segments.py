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
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count

from exporter.graph.chain import Block, Chain
from exporter.sharing.joining import Blocks, Joined
from exporter.sharing.occurrence import Copies, Key, Layout


class SegmentFinder:
    """Finds the segments of the same chains again and again, with other copies and cuts."""

    def __init__(self, chains: Sequence[Chain]) -> None:
        self._chains = chains
        self._depths = {chain.name: _depths(chain) for chain in chains}
        self.users = _users(chains)
        # The last copies of a chain, and its keys with them.
        self._known_keys: dict[str, tuple[Mapping[int, str], list[Key]]] = {}

    def find(self, copies: Copies, also_cut: Collection[str] = ()) -> Layout:
        """Return the segments of each chain by its name, each after those whose outputs it takes.

        copies: blocks that count as copies of their own, although an equal block occurs elsewhere (weights are then stored again).
        also_cut: addresses of taps that become cuts although no sharing needs them.
        """
        return self.joined(copies, also_cut).layout()

    def joined(self, copies: Copies, also_cut: Collection[str], levels: Collection[str] = frozenset()) -> Joined:
        """Return the segments as `find` finds them. levels: what they give in any case, as of Joined."""
        of_chain: dict[str, dict[int, str]] = {chain.name: {} for chain in self._chains}
        for (name, index), copy in copies.items():
            if name in of_chain:
                of_chain[name][index] = copy
        keys = {chain.name: self._keys(chain, of_chain[chain.name]) for chain in self._chains}
        blocks = Blocks(self._chains, keys, self.users)
        apart: dict[Key, tuple[int, ...]] = {}
        for tried in count():
            if not (joined := Joined(blocks, also_cut, apart, levels)).broken:
                break
            for key, rank in joined.broken.items():
                apart[key] = (
                    *apart.get(key, ()),
                    tried,
                    rank,
                )  # with `tried`, what is told apart once stays so: this comes to an end
        return joined

    def changed_keys(self, joined: Joined, copies: Copies) -> dict[str, dict[int, Key]]:
        """Return the keys that blocks get by further `copies`, by chain and index: these, and those without weights behind them."""
        of_chain: dict[str, dict[int, str]] = defaultdict(dict)
        for (name, index), copy in copies.items():
            of_chain[name][index] = copy
        return {name: self._changed(name, joined, found) for name, found in of_chain.items()}

    def _changed(self, name: str, joined: Joined, copies: Mapping[int, str]) -> dict[int, Key]:
        keys, at = joined.blocks.keys, joined.blocks.at[name]
        changed = {index: keys[at[index]]._replace(copy=copy) for index, copy in copies.items()}
        for index, block, before in self._followers[name]:
            if index in changed or any(maker in changed for maker in before.values()):
                found = {address: changed.get(maker) or keys[at[maker]] for address, maker in before.items()}
                old = changed.get(index) or keys[at[index]]
                changed[index] = old._replace(content=_content_behind(block, found))
        return changed

    @cached_property
    def _followers(self) -> dict[str, list[tuple[int, Block, dict[str, int]]]]:
        """Return for each chain its blocks that are the same behind the same blocks only, each with what makes what it takes."""
        return {chain.name: list(_followers(chain)) for chain in self._chains}

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
            content = _content_behind(block, found) if _is_follower(block) else block.content
            keys.append(Key(content, depth, copies.get(block.index, "")))
            found.update({tap.address: keys[-1] for tap in block.outputs})
        return keys


def _is_follower(block: Block) -> bool:
    """Whether `block` is the same block only behind the same blocks."""
    return not block.segment and (block.makes_less or not block.weight_bytes)


def _content_behind(block: Block, makers: Mapping[str, Key]) -> str:
    """Return what tells `block` apart behind others. makers: of taps by their addresses."""
    before = [makers[address].text if address in makers else address for address in block.addresses]
    return hashlib.sha256("\n".join([block.content, *before]).encode()).hexdigest()


def _followers(chain: Chain) -> Iterator[tuple[int, Block, dict[str, int]]]:
    made: dict[str, int] = {}
    for block in chain.blocks:
        if _is_follower(block):
            yield block.index, block, {address: made[address] for address in block.addresses if address in made}
        made.update({tap.address: block.index for tap in block.outputs})


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
