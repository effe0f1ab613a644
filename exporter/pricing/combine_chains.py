"""The chain of a network in which several blocks are tuned, from chains in each of which one is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from exporter.graph.chain import Block, Chain, Tap


def combine_chains(frozen: Chain, tuned: Sequence[Chain]) -> Chain | None:
    """Return `frozen` with every block changed that one of `tuned` changes; all are one network with different weights.

    The addresses behind a changed block are new, and no real network has them. None where the chains do not say it: when two of them
    change the same block, or when the weights' values decide where a network can be cut.
    """
    if any(_wiring(chain) != _wiring(frozen) for chain in tuned):
        return None
    blocks = []
    for places in zip(frozen.blocks, *(chain.blocks for chain in tuned), strict=True):
        changed = [block for block in places if block.digest != frozen.blocks[block.index].digest]
        if len(changed) > 1:
            return None
        blocks.append(changed[0] if changed else places[0])
    values = frozen.values and frozenset.intersection(*(values for chain in (frozen, *tuned) for values in chain.values))
    return replace(_connected(frozen, blocks), values=(values,) if values else (), answers=())


def _connected(frozen: Chain, blocks: Iterable[Block]) -> Chain:
    """Return `frozen` with `blocks` in place of its own, each fed by those before it."""
    addresses: dict[str, str] = {}  # of what comes after a change, by those in `frozen`
    connected = []
    for old, new in zip(frozen.blocks, blocks, strict=True):
        inputs = tuple(_readdressed(tap, addresses) for tap in old.inputs)
        if inputs != old.inputs or new.digest != old.digest:
            addresses |= {tap.address: _address(new, inputs, index) for index, tap in enumerate(old.outputs)}
        outputs = tuple(_readdressed(tap, addresses) for tap in old.outputs)
        connected.append(replace(new, inputs=inputs, outputs=outputs))
    return replace(frozen, blocks=tuple(connected), outputs=tuple(_readdressed(tap, addresses) for tap in frozen.outputs))


def _readdressed(tap: Tap, addresses: dict[str, str]) -> Tap:
    return replace(tap, address=addresses.get(tap.address, tap.address))


def _address(block: Block, inputs: Sequence[Tap], output: int) -> str:
    return hashlib.sha256("/".join([block.digest, *(tap.address for tap in inputs), str(output)]).encode()).hexdigest()


def _wiring(chain: Chain) -> list[tuple[object, ...]]:
    """Return for each block where its inputs come from, and what they and its outputs are."""
    made = {tap.address: (block.index, place) for block in chain.blocks for place, tap in enumerate(block.outputs)}
    return [
        (
            *((made.get(tap.address), tap.dtype, tap.shape) for tap in block.inputs),
            *((tap.dtype, tap.shape) for tap in block.outputs),
        )
        for block in chain.blocks
    ]
