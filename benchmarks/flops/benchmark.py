"""What sharing saves on paper, at every place where tasks can fork.

Tasks that fork at a cut share what is before it; everything behind it is computed for each. Weights are counted for two kinds of tasks:
"one block" tunes the block behind the fork and a head, and the frozen blocks between are stored once; "all behind" tunes all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.flops.count import Counted, Saved, count, save
from benchmarks.framework.options import Options
from benchmarks.framework.result import Cell, Column, Plot, Result, Series, Style, Table, Unit
from benchmarks.models.families import HEAD, network_cache, networks

_TASKS = (1, 2, 4, 8, 16, 32)
_CONVENTION = (
    "One multiply-add is one MAC and GFLOPs = 2 x GMACs; convolutions and matrix products count, as in torch's counter. Activations "
    "are the outputs of those operators, for one image, at 4 bytes a number."
)


def run(options: Options) -> Result:
    """Count every network of the scale."""
    found: list[Counted] = []
    for network in networks(options):
        options.say(f"Counting {network.name}")
        found.append(count(network, network_cache(options)))
    forks = {network.name: network.forks for network in networks(options)}
    tables = [table for counted in found for table in _tables(counted)]
    return Result(
        " ".join(_headline(counted, forks[counted.name][0]) for counted in found),
        (_summary(found, forks), *tables),
        tuple(_plot(counted) for counted in found),
        (_CONVENTION, *(" ".join(words.split()) for words in (__doc__ or "").strip().split("\n\n")[1:])),
        tuple(_failures(found)),
        {counted.name: _raw(counted) for counted in found},
    )


def _tables(counted: Counted) -> tuple[Table, ...]:
    whole = counted.whole
    return _blocks(counted), _speedups(whole), _weights(whole), _activations(whole)


def _failures(found: Sequence[Counted]) -> Iterator[str]:
    for counted in found:
        if not counted.counts_agree:
            yield f"{counted.name}: {counted.macs:,} MACs were counted, but torch's counter finds {counted.torch_macs:,}."


def _headline(counted: Counted, fork: str) -> str:
    speedup = save(counted.whole, counted.whole.places.index(fork), 8).speedup
    return (
        f"Eight tasks of {counted.name} that fork at {fork} need {speedup:.2f} times fewer MACs than separate networks (counted as torch "
        f"counts: {counted.macs / counted.torch_macs:.4f})."
    )


def _raw(counted: Counted) -> dict[str, Any]:
    """Return every block and every place to fork, also those between the parts of a module."""
    blocks: tuple[Mapping[str, Cell], ...] = _block_rows(counted)
    saved = [asdict(save(counted, fork, tasks)) for fork in range(1, len(counted.blocks)) for tasks in _TASKS]
    return {"torch_macs": counted.torch_macs, "blocks": list(blocks), "saved": saved}


def _summary(found: Sequence[Counted], forks: Mapping[str, Sequence[str]]) -> Table:
    rows = [_summary_row(counted.whole, fork) for counted in found for fork in forks[counted.name]]
    columns = (
        Column("network", "network"),
        Column("fork", "fork"),
        Column("trunk", "trunk's share of MACs", Unit.share),
        Column("separate_macs", "compute, separate", Unit.macs),
        Column("macs", "shared", Unit.macs),
        Column("speedup", "times fewer", Unit.ratio),
        Column("separate_parameters", "parameters, separate", Unit.number),
        Column("parameters", "shared", Unit.number),
        Column("separate_bytes", "weights, separate", Unit.bytes),
        Column("block_bytes", "shared", Unit.bytes),
        Column("smaller", "times fewer", Unit.ratio),
        Column("separate_activation_bytes", "activations, separate", Unit.bytes),
        Column("activation_bytes", "shared", Unit.bytes),
    )
    return Table(
        "Eight tasks", columns, tuple(rows), "Each task tunes the block at the fork, or none (fork at head), and has a head."
    )


def _summary_row(whole: Counted, fork: str) -> dict[str, Cell]:
    place = len(whole.blocks) - 1 if fork == HEAD else whole.places.index(fork)
    saved = save(whole, place, 8)
    ratios = {"speedup": saved.speedup, "smaller": saved.separate_bytes / saved.block_bytes, "trunk": _share(whole, place)}
    return {**asdict(saved), "network": whole.name, "fork": fork, **ratios}


def _share(counted: Counted, fork: int) -> float:
    """Return the part of the MACs that is in front of block `fork`."""
    return sum(block.macs for block in counted.blocks[:fork]) / counted.macs


def _blocks(counted: Counted) -> Table:
    columns = (
        Column("block", "block"),
        Column("macs", "compute", Unit.macs),
        Column("parameters", "parameters", Unit.number),
        Column("weight_bytes", "weights", Unit.bytes),
        Column("activation_bytes", "activations", Unit.bytes),
        Column("tap_bytes", "crosses the cut after it", Unit.bytes),
    )
    caption = f"All: {counted.macs / 1e9:.3f} GMACs; torch's counter: {counted.torch_macs / 1e9:.3f}."
    if len(counted.whole.blocks) < len(counted.blocks):
        caption += f" {len(counted.blocks)} segments are possible at most, for some of these can be cut within."
    return Table(f"{counted.name}: blocks", columns, _block_rows(counted.whole), caption)


def _block_rows(counted: Counted) -> tuple[dict[str, Cell], ...]:
    return tuple(
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


def _by_fork(counted: Counted, ratio: Callable[[Saved], float]) -> tuple[Mapping[str, Cell], ...]:
    """Return a row for each fork with a column for each number of tasks."""
    forks = range(1, len(counted.blocks))
    return tuple(
        {
            "fork": counted.places[fork],
            "trunk": _share(counted, fork),
            **{f"n{tasks}": ratio(save(counted, fork, tasks)) for tasks in _TASKS},
        }
        for fork in forks
    )


def _ratio_columns() -> tuple[Column, ...]:
    counts = tuple(Column(f"n{tasks}", f"{tasks} tasks", Unit.ratio) for tasks in _TASKS if tasks > 1)
    return (Column("fork", "fork in front of"), Column("trunk", "trunk's share of MACs", Unit.share), *counts)


def _speedups(counted: Counted) -> Table:
    caption = "MACs of separate networks over MACs with a shared trunk: the speed-up that the arithmetic allows."
    rows = _by_fork(counted, lambda saved: saved.speedup)
    return Table(f"{counted.name}: compute saved", _ratio_columns(), rows, caption)


def _weights(counted: Counted) -> Table:
    caption = "Weights of separate networks over shared ones, when each task tunes one block and its head."
    rows = _by_fork(counted, lambda saved: saved.separate_bytes / saved.block_bytes)
    return Table(f"{counted.name}: weights saved", _ratio_columns(), rows, caption)


def _activations(counted: Counted) -> Table:
    caption = "Activations that separate networks compute for one image over those with a shared trunk."
    rows = _by_fork(counted, lambda saved: saved.separate_activation_bytes / saved.activation_bytes)
    return Table(f"{counted.name}: activations saved", _ratio_columns(), rows, caption)


def _plot(counted: Counted) -> Plot:
    forks = range(1, len(counted.blocks))
    shares = tuple(100 * _share(counted, fork) for fork in forks)
    series = [
        Series(f"{tasks} tasks", shares, tuple(save(counted, fork, tasks).speedup for fork in forks))
        for tasks in _TASKS
        if tasks > 1
    ]
    limit = Series("no limit to the number of tasks", shares, tuple(map(_limit, shares)), style=Style.dashed)
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
    return 100 / max(100 - share, 100 / (2 * max(_TASKS)))  # what is left out beyond is out of the picture
