"""Counts what is in a network, block by block, and what tasks cost that fork at one of them; `benchmark` shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx_ir as ir

from benchmarks.models.families import NetworkCache, TimmNetwork
from exporter.graph.chain import Block, Chain
from exporter.graph.macs import PRODUCTS
from exporter.graph.shapes import infer_shapes, shape_of
from exporter.pricing.price import part_after
from exporter.sources.sandbox import analyse
from tuning.network.backbone import block_macs

_TOLERANCE = 0.01


@dataclass(frozen=True)
class Counted:
    """A network's blocks with the bytes of activations in each, and the MACs that torch's counter finds in all of it."""

    name: str
    blocks: tuple[Block, ...]
    activation_bytes: tuple[int, ...]
    torch_macs: int

    @property
    def macs(self) -> int:
        """Return the MACs of all blocks."""
        return sum(block.macs for block in self.blocks)

    @property
    def places(self) -> tuple[str, ...]:
        """Return what each block is called: the module that it begins with, and its number where several begin with one."""
        names = [_name(block) or f"block {block.index}" for block in self.blocks]
        numbers = [names[:index].count(name) + 1 for index, name in enumerate(names)]
        return tuple(name if number == 1 else f"{name} ({number})" for name, number in zip(names, numbers, strict=True))

    @property
    def whole(self) -> Counted:
        """Return it with one block for each module: parts of one, as of a ViT's blocks, are put together, and so is what has no name."""
        names = [_name(block) for block in self.blocks]
        starts = [place for place, name in enumerate(names) if place == 0 or name not in ("", *names[place - 1 : place])]
        parts = [slice(start, end) for start, end in zip(starts, [*starts[1:], len(names)], strict=True)]
        blocks = tuple(_put_together(self.blocks[part]) for part in parts)
        return replace(self, blocks=blocks, activation_bytes=tuple(sum(self.activation_bytes[part]) for part in parts))

    @property
    def counts_agree(self) -> bool:
        """Whether torch counts the same, to 1 %."""
        return abs(self.macs - self.torch_macs) <= _TOLERANCE * self.torch_macs


def _name(block: Block) -> str:
    """Return the module that `block` begins with, "" where none is known."""
    return next((name for name in block.modules if name != "normalise"), "")


def _put_together(blocks: Sequence[Block]) -> Block:
    return replace(
        blocks[0],
        outputs=blocks[-1].outputs,
        macs=sum(block.macs for block in blocks),
        parameters=sum(block.parameters for block in blocks),
        weight_bytes=sum(block.weight_bytes for block in blocks),
    )


@dataclass(frozen=True)
class Saved:
    """What `tasks` tasks cost that fork in front of block `fork`, shared and as separate networks.

    parameters, block_bytes: when each task tunes one block; all_bytes: weights when it tunes all behind the fork. The head is the last
    block.
    """

    fork: int
    tasks: int
    macs: int
    separate_macs: int
    activation_bytes: int
    separate_activation_bytes: int
    parameters: int
    separate_parameters: int
    block_bytes: int
    all_bytes: int
    separate_bytes: int

    @property
    def speedup(self) -> float:
        """Return how many times fewer MACs it is."""
        return self.separate_macs / self.macs


def save(counted: Counted, fork: int, tasks: int) -> Saved:
    """Return what `tasks` tasks cost that fork in front of block `fork`."""
    macs = [block.macs for block in counted.blocks]
    weights = [block.weight_bytes for block in counted.blocks]
    parameters = [block.parameters for block in counted.blocks]

    def shared(counts: Sequence[int]) -> int:
        return sum(counts[:fork]) + tasks * sum(counts[fork:])

    def one_block(counts: Sequence[int]) -> int:
        own = sum({fork: counts[fork], len(counts) - 1: counts[-1]}.values())
        return sum(counts) + (tasks - 1) * own

    activations = counted.activation_bytes
    return Saved(
        fork,
        tasks,
        macs=shared(macs),
        separate_macs=tasks * sum(macs),
        activation_bytes=shared(activations),
        separate_activation_bytes=tasks * sum(activations),
        parameters=one_block(parameters),
        separate_parameters=tasks * sum(parameters),
        block_bytes=one_block(weights),
        all_bytes=shared(weights),
        separate_bytes=tasks * sum(weights),
    )


def count(network: TimmNetwork, cache: NetworkCache) -> Counted:
    """Return what is in `network`, from its ONNX graph, beside what torch counts."""
    model, chain = analyse(network.name, cache.exporter(network).export_backbone().model)
    return Counted(network.name, chain.blocks, _activations(model, chain), block_macs(cache.backbone(network))[0])


def _activations(model: ir.Model, chain: Chain) -> tuple[int, ...]:
    """Return the bytes of activations in each block: those behind its start without those behind its end."""
    behind = [_activation_bytes(part_after(model, chain, block.start)) for block in chain.blocks]
    return tuple(start - end for start, end in zip(behind, [*behind[1:], 0], strict=True))


def _activation_bytes(model: ir.Model) -> int:
    shapes = infer_shapes(model, 1)
    return sum(4 * prod(shape_of(node.outputs[0], shapes)) for node in model.graph if node.op_type in PRODUCTS)
