"""What differs between two networks: which blocks, and by how much.

Both are brought to canonical form and split as for an export; a block is equal if its digest is. Blocks of equal structure are compared
weight by weight. The weights are those of the canonical graph: of a torch export, BatchNorm is folded into the convolution before it, so
that a norm is that of the folded weights, and a changed statistic shows as a change of the convolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from exporter.diff.block_alignment import BlockPair, align_blocks
from exporter.diff.weight_diff import WeightDiff, counts, measure, relative_norm
from exporter.diff.weight_matching import Ends, match_weights
from exporter.errors import ExportError
from exporter.graph.chain import Block, Chain, Tap
from exporter.graph.difference import first_difference, nodes_of
from exporter.graph.network import Network
from exporter.sources.inputs import Chosen, match_inputs
from exporter.sources.sandbox import canonical_form
from exporter.sources.task_model import TaskModel

NEAR = 1e-2  # of the largest number of a weight; what is farther apart was trained
DiffKind = Literal["equal", "changed", "altered", "replaced", "removed", "added"]


@dataclass(frozen=True)
class BlockDiff:
    """A block of the first network beside the block of the second that stands in its place; one of them may be missing.

    kind: "equal"; "changed" (other weights); "altered" (the same operators with weights of other sizes, other attributes or integer
    constants); "replaced" (other operators); "removed" or "added" (only the first or the second network has it).
    weights: all floating-point weights of the block and integer ones that differ, if `kind` is "changed" or "altered".
    difference: if it is "altered" or "replaced", the operator that differs first and how, in words: "Gelu here, Erf and Mul there".
    """

    kind: DiffKind
    block: Block | None
    other: Block | None
    weights: tuple[WeightDiff, ...] = ()
    difference: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the modules of the block; where the producer recorded none, what its weights are called; else its output's name."""
        block = self.block or self.other
        assert block is not None
        owners = (weight.name.rpartition(".")[0] or weight.name for weight in self.weights)
        return block.modules or tuple(dict.fromkeys(owners)) or (block.end.name,)

    @property
    def parameters(self) -> int:
        """Return the number of weights in the first network, or in the second if only that has the block."""
        block = self.block or self.other
        return block.parameters if block is not None else 0

    @property
    def relative_norm(self) -> float | None:
        """Return ||b - a|| / ||a|| over all weights of the block; None unless all have equal shapes."""
        return relative_norm(self.weights)

    @property
    def largest_change(self) -> float | None:
        """Return the largest |b - a| of its weights that can be compared."""
        known = [weight.largest_change for weight in self.weights if weight.largest_change is not None]
        return float(np.max(known)) if known else None

    @property
    def relative_change(self) -> float | None:
        """Return the largest |b - a| of its weights as a part of the largest |a| of that weight; None unless all have equal shapes."""
        found = [weight.relative_change for weight in self.weights]
        known = [change for change in found if change is not None]
        return float(np.max(known)) if known and len(known) == len(found) else None

    @property
    def changed_weights(self) -> int:
        """Return how many of `weights` are not the same."""
        return sum(weight.changed != 0 for weight in self.weights)


@dataclass(frozen=True)
class NetworkDiff:
    """Two networks side by side, block by block. shared_macs: what both compute on the same tensors from the input on, for one row.

    remarks: what differs apart from the blocks, a sentence each.
    """

    chain: Chain
    other: Chain
    blocks: tuple[BlockDiff, ...]
    shared_macs: int
    remarks: tuple[str, ...] = ()

    @property
    def differing(self) -> tuple[BlockDiff, ...]:
        """Return the blocks that are not equal."""
        return tuple(block for block in self.blocks if block.kind != "equal")

    @property
    def near(self) -> tuple[BlockDiff, ...]:
        """Return the blocks whose weights are nearly equal, as rounding leaves them, and not quite."""
        found = ((block, block.relative_change) for block in self.blocks if block.kind == "changed")
        return tuple(block for block, change in found if change is not None and change <= NEAR)

    @property
    def shared_part(self) -> float:
        """Return `shared_macs` as a part of the larger network's."""
        most = max(self.chain.macs, self.other.macs)
        return self.shared_macs / most if most else float(not self.differing)


class NothingInCommon(ExportError):
    """Two networks that have no block of the same operators."""

    def __init__(self, left: Chain, right: Chain, difference: str = "") -> None:
        super().__init__(
            f"{left.name} ({len(left.blocks)} blocks) and {right.name} ({len(right.blocks)} blocks) have no block of the same operators"
            f"{difference and f' (first {difference})'}, so that nothing can be compared; give two networks of one architecture."
        )


def diff_models(name: str, model: TaskModel, other_name: str, other: TaskModel, inputs: Chosen | None = None) -> NetworkDiff:
    """Return what differs between two task models. Both are changed to canonical form in place.

    inputs: per network, what some of its inputs are in the other one, or are called; the others are matched. Raises AmbiguousInput, ...,
    UnsupportedModel when one of them cannot be split, NothingInCommon when no block of one is like a block of the other.
    """
    left, right = _networks([(name, model), (other_name, other)], inputs or {})
    chain, other_chain = left.chain(), right.chain()
    chain, other_chain = left.chain(kept=other_chain.taps), right.chain(kept=chain.taps)
    changes = tuple(_compare(pair, left.model, right.model) for pair in align_blocks(chain.blocks, other_chain.blocks))
    if all(change.kind in ("replaced", "removed", "added") for change in changes):
        raise NothingInCommon(chain, other_chain, _difference((chain.blocks[0], other_chain.blocks[0]), left.model, right.model))
    shared = left.macs_of(frozenset[str]().union(*other_chain.values))
    return NetworkDiff(chain, other_chain, changes, shared, tuple(_remarks(chain, other_chain, model, other)))


def _networks(models: Sequence[tuple[str, TaskModel]], inputs: Chosen) -> Iterator[Network]:
    """Yield two networks that take the same where their inputs are the same."""
    networks = [Network(name, canonical_form(name, model.model)) for name, model in models]
    taken = {
        name: network.inputs for (name, _), network in zip(models, networks, strict=True)
    }  # one of them, if it is given twice
    matched = match_inputs(taken, {}, inputs)
    for network in networks:
        yield network.fed([one.address for one in matched[network.name]])


def _compare(pair: BlockPair, model: ir.Model, other: ir.Model) -> BlockDiff:
    ours, theirs = pair
    if ours is None or theirs is None:
        return BlockDiff("added" if ours is None else "removed", ours, theirs)
    if ours.digest == theirs.digest:
        return BlockDiff("equal", ours, theirs)
    weights = match_weights(_ends(ours, model), _ends(theirs, other))
    kind: DiffKind = "replaced" if weights is None else "changed" if ours.structure == theirs.structure else "altered"
    difference = _difference((ours, theirs), model, other) if kind != "changed" else ""
    return BlockDiff(kind, ours, theirs, tuple(measure(weight) for weight in weights or () if counts(weight)), difference)


def _difference(pair: tuple[Block, Block], model: ir.Model, other: ir.Model) -> str:
    return first_difference(nodes_of(model, pair[0]), nodes_of(other, pair[1]))


def _ends(block: Block, model: ir.Model) -> Ends:
    part = nodes_of(model, block)
    return part.inputs, part.outputs


def _remarks(chain: Chain, other: Chain, model: TaskModel, other_model: TaskModel) -> Iterator[str]:
    if [_type(tap) for tap in chain.inputs] != [_type(tap) for tap in other.inputs]:
        yield f"The inputs differ: {_types(chain.inputs)} against {_types(other.inputs)}."
    described = _preprocessing(model, other_model)
    if described or chain.preprocessing != other.preprocessing:
        yield f"The preprocessing differs{described}."
    if [_type(tap) for tap in chain.outputs] != [_type(tap) for tap in other.outputs]:
        yield f"The outputs differ: {_types(chain.outputs)} against {_types(other.outputs)}."
    elif model.labels != other_model.labels:
        yield "The labels differ."


def _type(tap: Tap) -> str:
    return f"{tap.dtype} rows of shape {list(tap.shape)}"


def _types(taps: Iterable[Tap]) -> str:
    return " and ".join(map(_type, taps))


def _preprocessing(model: TaskModel, other: TaskModel) -> str:
    if model.preprocessing is None or other.preprocessing is None:
        return ""  # its constants are in the graph, their meaning is not recorded
    ours, theirs = vars(model.preprocessing), vars(other.preprocessing)
    changes = [f"{name} {value} against {theirs[name]}" for name, value in ours.items() if value != theirs[name]]
    return f": {', '.join(changes)}" if changes else ""
