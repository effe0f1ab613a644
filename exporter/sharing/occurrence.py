"""What a segment is where it occurs: which one, its blocks there, and the taps around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from exporter.graph.chain import Block, Tap

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
    """A segment as it occurs in a chain: which one (the key of its first block), its blocks there, and what it takes and gives there."""

    key: Key
    chain: str
    blocks: BlockRun = field(repr=False)
    taken: tuple[Tap, ...] = field(repr=False)
    given: tuple[Tap, ...] = field(repr=False)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Return the addresses of what it takes."""
        return tuple(tap.address for tap in self.taken)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Return the addresses of what it gives."""
        return tuple(tap.address for tap in self.given)

    @cached_property
    def macs(self) -> int:
        """Return the MACs of its blocks, for one row."""
        return sum(block.macs for block in self.blocks)

    @cached_property
    def weight_bytes(self) -> int:
        """Return the size of its weights."""
        return sum(block.weight_bytes for block in self.blocks)


Layout = dict[str, list[Occurrence]]  # the segments of each chain by its name
