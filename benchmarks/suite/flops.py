"""What sharing saves on paper, at every place where tasks can fork.

Tasks that fork at a cut share what is before it; everything behind it is computed for each. Weights are counted for two kinds of tasks:
"one block" tunes the block behind the fork and a head, and the frozen blocks between are stored once; "all behind" tunes all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from benchmarks.suite.families import Network, Workshop, networks
from benchmarks.suite.options import Options
from benchmarks.suite.result import Cell, Column, Plot, Result, Series, Style, Table, Unit
from exporter.chain import Block, Chain
from exporter.guard import analyse
from exporter.macs import PRODUCTS
from exporter.pricing import part_after
from exporter.shapes import infer_shapes, shape_of
from tuning.macs import block_macs

TASKS = (1, 2, 4, 8, 16, 32)
_TOLERANCE = 0.01
CONVENTION = (
    "One multiply-add is one MAC and GFLOPs = 2 x GMACs; convolutions and matrix products count, as in torch's counter. Activations "
    "are the outputs of those operators, for one image, at 4 bytes a number."
)


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
        names = [next((name for name in block.modules if name != "normalise"), f"block {block.index}") for block in self.blocks]
        numbers = [names[:index].count(name) + 1 for index, name in enumerate(names)]
        return tuple(name if number == 1 else f"{name} ({number})" for name, number in zip(names, numbers, strict=True))

    @property
    def counts_agree(self) -> bool:
        """Whether torch counts the same, to 1 %."""
        return abs(self.macs - self.torch_macs) <= _TOLERANCE * self.torch_macs


@dataclass(frozen=True)
class Saved:
    """What `tasks` tasks cost that fork in front of block `fork`, shared and as separate networks.

    block_bytes, all_bytes: weights when each task tunes one block, or all behind the fork; the head is the last block.
    """

    fork: int
    tasks: int
    macs: int
    separate_macs: int
    activation_bytes: int
    separate_activation_bytes: int
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
    own = sum({fork: weights[fork], len(weights) - 1: weights[-1]}.values())

    def shared(counts: Sequence[int]) -> int:
        return sum(counts[:fork]) + tasks * sum(counts[fork:])

    activations = counted.activation_bytes
    return Saved(
        fork,
        tasks,
        macs=shared(macs),
        separate_macs=tasks * sum(macs),
        activation_bytes=shared(activations),
        separate_activation_bytes=tasks * sum(activations),
        block_bytes=sum(weights) - own + tasks * own,
        all_bytes=shared(weights),
        separate_bytes=tasks * sum(weights),
    )


def count(network: Network, workshop: Workshop) -> Counted:
    """Return what is in `network`, from its ONNX graph, beside what torch counts."""
    model, chain = analyse(network.name, workshop.exporter(network).export_backbone().model)
    return Counted(network.name, chain.blocks, _activations(model, chain), block_macs(workshop.backbone(network))[0])


def _activations(model: ir.Model, chain: Chain) -> tuple[int, ...]:
    """Return the bytes of activations in each block: those behind its start without those behind its end."""
    behind = [_activation_bytes(part_after(model, chain, block.start)) for block in chain.blocks]
    return tuple(start - end for start, end in zip(behind, [*behind[1:], 0], strict=True))


def _activation_bytes(model: ir.Model) -> int:
    shapes = infer_shapes(model, 1)
    return sum(4 * prod(shape_of(node.outputs[0], shapes)) for node in model.graph if node.op_type in PRODUCTS)


def run(options: Options) -> Result:
    """Count every network of the scale."""
    tables: list[Table] = []
    plots, failed, headlines = [], [], []
    for network in networks(options):
        options.say(f"Counting {network.name}")
        counted = count(network, options.workshop)
        rows = [save(counted, fork, tasks) for fork in range(1, len(counted.blocks)) for tasks in TASKS]
        tables += [_blocks(counted), _speedups(counted, rows), _weights(counted, rows)]
        plots.append(_plot(counted, rows))
        headlines.append(_headline(counted, network.forks[0]))
        if not counted.counts_agree:
            failed.append(
                f"{counted.name}: {counted.macs:,} MACs were counted, but torch's counter finds {counted.torch_macs:,}."
            )
    return Result(
        " ".join(headlines), tuple(tables), tuple(plots), (CONVENTION, *(__doc__ or "").strip().split("\n\n")[1:]), tuple(failed)
    )


def _headline(counted: Counted, fork: str) -> str:
    speedup = save(counted, counted.places.index(fork), 8).speedup
    return (
        f"Eight tasks of {counted.name} that fork at {fork} need {speedup:.2f} times fewer MACs than separate networks (counted as torch "
        f"counts: {counted.macs / counted.torch_macs:.4f})."
    )


def _blocks(counted: Counted) -> Table:
    columns = (
        Column("block", "block"),
        Column("macs", "compute", Unit.macs),
        Column("parameters", "parameters", Unit.number),
        Column("weight_bytes", "weights", Unit.bytes),
        Column("activation_bytes", "activations", Unit.bytes),
        Column("tap_bytes", "crosses the cut after it", Unit.bytes),
    )
    rows: tuple[dict[str, Cell], ...] = tuple(
        {
            "block": place,
            "macs": block.macs,
            "parameters": block.parameters,
            "weight_bytes": block.weight_bytes,
            "activation_bytes": activations,
            "tap_bytes": sum(tap.row_bytes for tap in block.outputs),
        }
        for place, block, activations in zip(counted.places, counted.blocks, counted.activation_bytes, strict=True)
    )
    caption = (
        f"All: {counted.macs / 1e9:.3f} GMACs; torch's counter: {counted.torch_macs / 1e9:.3f}. The smallest segments possible."
    )
    return Table(f"{counted.name}: blocks", columns, rows, caption)


def _by_fork(counted: Counted, rows: Sequence[Saved], key: str) -> tuple[Mapping[str, Cell], ...]:
    """Return a row for each fork with a column for each number of tasks."""
    table: dict[int, dict[str, Cell]] = {}
    before = 0
    for fork in range(1, len(counted.blocks)):
        before += counted.blocks[fork - 1].macs
        table[fork] = {"fork": counted.places[fork], "trunk": before / counted.macs}
    for row in rows:
        ratios = {
            "speedup": row.speedup,
            "block_bytes": row.separate_bytes / row.block_bytes,
            "all_bytes": row.separate_bytes / row.all_bytes,
        }
        table[row.fork][f"n{row.tasks}"] = ratios[key]
        table[row.fork] |= {f"n{row.tasks}_{name}": value for name, value in vars(row).items() if name not in ("fork", "tasks")}
    return tuple(table.values())


def _ratio_columns() -> tuple[Column, ...]:
    counts = tuple(Column(f"n{tasks}", f"{tasks} tasks", Unit.ratio) for tasks in TASKS if tasks > 1)
    return (Column("fork", "fork in front of"), Column("trunk", "trunk's share of MACs", Unit.share), *counts)


def _speedups(counted: Counted, rows: Sequence[Saved]) -> Table:
    caption = "MACs of separate networks over MACs with a shared trunk: the speed-up that the arithmetic allows."
    return Table(f"{counted.name}: compute saved", _ratio_columns(), _by_fork(counted, rows, "speedup"), caption)


def _weights(counted: Counted, rows: Sequence[Saved]) -> Table:
    caption = "Weights of separate networks over shared ones, when each task tunes one block and its head."
    return Table(f"{counted.name}: weights saved", _ratio_columns(), _by_fork(counted, rows, "block_bytes"), caption)


def _plot(counted: Counted, rows: Sequence[Saved]) -> Plot:
    shares = {row.fork: 0.0 for row in rows}
    for fork in shares:
        shares[fork] = 100 * sum(block.macs for block in counted.blocks[:fork]) / counted.macs
    series = [
        Series(
            f"{tasks} tasks",
            tuple(shares[row.fork] for row in rows if row.tasks == tasks),
            tuple(row.speedup for row in rows if row.tasks == tasks),
        )
        for tasks in TASKS
        if tasks > 1
    ]
    limit = Series(
        "no limit to the number of tasks", tuple(shares.values()), tuple(_limit(s) for s in shares.values()), style=Style.dashed
    )
    return Plot(
        f"flops-{counted.name}",
        f"{counted.name}: compute saved by where the tasks fork",
        "Each point is a place where the network can be cut. MACs of separate networks over MACs with a shared trunk.",
        "trunk's share of the MACs (%)",
        "times fewer MACs",
        (*series, limit),
        log="y",
    )


def _limit(share: float) -> float:
    return 100 / max(100 - share, 100 / (2 * max(TASKS)))  # what is left out beyond is out of the picture
