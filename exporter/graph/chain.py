"""A task model as blocks that feed each other: what sharing is decided on, without the graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import onnx_ir as ir

from contract.repository.free_sizes import FreeSize
from exporter.graph.coupling import Suspect
from exporter.graph.digests import content_of


@dataclass(frozen=True)
class Tap:
    """A tensor at a cut point, or an input or output. `address` hashes how it is computed: equal address, equal value.

    name: the tensor's name in its own model. shape: without the batch axis, -1 where a size is free. axes: what free axes are called, an
    entry for each of `shape`, "" where it is fixed; empty where none is free. sizes: what is known of them, by those names.
    """

    name: str = field(compare=False)
    address: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...] = field(default=(), compare=False)
    sizes: Mapping[str, FreeSize] = field(default_factory=dict, compare=False, repr=False)

    @property
    def rows(self) -> tuple[str, tuple[int, ...]]:
        """Return the dtype and the shape of one row."""
        return self.dtype, self.shape

    @property
    def reference_shape(self) -> tuple[int, ...]:
        """Return the shape at the reference sizes."""
        names = self.axes or ("",) * len(self.shape)
        return tuple(self.sizes[name].reference if name else size for size, name in zip(self.shape, names, strict=True))

    @property
    def row_bytes(self) -> int:
        """Return the size of one row, at the reference sizes."""
        return prod(self.reference_shape) * ir.DataType[self.dtype].bitwidth // 8


@dataclass(frozen=True)
class Block:
    """A part of the network that can be a model of its own: what is computed between some taps.

    inputs: the taps that it takes, in the order in which its nodes take them. outputs: most often one tap.
    structure: the digest without the weights' values. macs: for one row. parameters, weight_bytes: number and size of the weights.
    modules: the network's modules in it, where the producer recorded them. matrices: hashes of its weights of two axes and more, by
    which it is known that another block computes something else with the same weights. uncounted: operator types that `macs` leaves out.
    steps: the digest of the scales and zero points by which it quantises what is computed, "" where it does not.
    suspects: operators through which the rows of a batch may affect each other.
    segment: the segment of a repository that the block is, and stays; "" where there is none yet.
    span: the first and the last block of the network by itself, whatever others there are, that it has something of; None: itself.
    """

    index: int
    digest: str
    structure: str
    inputs: tuple[Tap, ...]
    outputs: tuple[Tap, ...]
    macs: int
    parameters: int
    weight_bytes: int
    modules: tuple[str, ...] = ()
    uncounted: tuple[str, ...] = ()
    suspects: tuple[Suspect, ...] = ()
    steps: str = ""
    matrices: frozenset[bytes] = field(default=frozenset(), repr=False, compare=False)
    segment: str = ""
    span: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def places(self) -> tuple[int, int]:
        """Return `span`, or what it is where the network is by itself."""
        return self.span or (self.index, self.index)

    @property
    def makes_less(self) -> bool:
        """Whether it makes less of one tensor, and costs next to nothing: better in front of a border than behind it."""
        if self.macs or not len(self.inputs) == len(self.outputs) == 1:
            return False
        return self.weight_bytes < self.start.row_bytes - self.end.row_bytes

    @cached_property
    def content(self) -> str:
        """Return what tells it apart from blocks that need a model of their own."""
        return content_of(self.digest, (tap.rows for tap in self.inputs))

    @cached_property
    def addresses(self) -> tuple[str, ...]:
        """Return the addresses of what it takes."""
        return tuple(tap.address for tap in self.inputs)

    @property
    def start(self) -> Tap:
        """Return the first tap before the block."""
        return self.inputs[0]

    @property
    def end(self) -> Tap:
        """Return the first tap after the block."""
        return self.outputs[0]


@dataclass(frozen=True)
class Chain:
    """A network from its inputs to its outputs, as blocks, each after those whose taps it takes. Most often they are in one line.

    preprocessing: digest of what stands before the first MAC, "" if nothing does. answers: the addresses of its outputs, those together
    that are asked for together; empty: all are. values: for each answer, the addresses of all that is computed for it. own_macs: of the
    whole network for one row, where blocks compute something again; None: they do not.
    """

    name: str
    blocks: tuple[Block, ...] = field(repr=False)
    inputs: tuple[Tap, ...]
    outputs: tuple[Tap, ...]
    preprocessing: str = ""
    answers: tuple[tuple[str, ...], ...] = field(default=(), compare=False, repr=False)
    values: tuple[frozenset[str], ...] = field(default=(), compare=False, repr=False)
    own_macs: int | None = field(default=None, compare=False, repr=False)

    @property
    def macs(self) -> int:
        """Return the MACs of the whole network for one row."""
        return sum(block.macs for block in self.blocks) if self.own_macs is None else self.own_macs

    @property
    def taps(self) -> frozenset[str]:
        """Return the addresses of all tensors between blocks, inputs and outputs included."""
        return frozenset(tap.address for block in self.blocks for tap in (*block.inputs, *block.outputs))


def count_users(networks: Iterable[tuple[frozenset[str], ...]]) -> dict[str, int]:
    """Return for each address a number that tells who needs the value: equal numbers, equal users. networks: `values` of chains."""
    users: dict[str, int] = {}
    for place, values in enumerate(values for network in networks for values in network):
        for address in values:
            users[address] = users.get(address, 0) | 1 << place
    return users


def in_order(blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Return `blocks`, each given after those whose taps it takes, by how many are before them, whatever the order of the nodes was."""
    steps: dict[str, int] = {}  # to each tensor
    ranks = []
    for block in blocks:
        rank = max((steps.get(tap.address, 0) for tap in block.inputs), default=0)
        steps.update({tap.address: rank + 1 for tap in block.outputs})
        ranks.append((rank, block.structure, block.digest, [tap.address for tap in block.inputs]))
    places = sorted(range(len(blocks)), key=ranks.__getitem__)
    return tuple(replace(blocks[place], index=index) for index, place in enumerate(places))


def span_of(blocks: Iterable[Block]) -> tuple[int, int]:
    """Return the first and the last block of the network by itself that `blocks` have something of."""
    firsts, lasts = zip(*(block.places for block in blocks), strict=True)
    return min(firsts), max(lasts)
