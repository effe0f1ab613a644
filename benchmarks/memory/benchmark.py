"""Resident memory and disk for 1 to 32 tasks.

Each measurement in a fresh process that loads the networks, answers one request for all of them, and compares its resident memory with what
it was before: the embedded engine with what these tasks need of the repository, against a session for each whole network with the engine's
own options; both give back what opening a network has left free. One thread. Disk: the files of these segments and tasks, against one
ONNX file for each task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.framework.options import Options
from benchmarks.framework.result import Cell, Column, Plot, Result, Series, Table, Unit
from benchmarks.memory.measure import separate_resident, shared_resident
from benchmarks.models.families import RANDOM_WEIGHTS, TimmNetwork, first_tasks, network_cache, networks
from benchmarks.models.synthetic import Family


@dataclass(frozen=True)
class _Footprint:
    """Bytes for `tasks` tasks of a network, shared and separate."""

    network: str
    fork: str
    tasks: int
    shared: int
    separate: int
    shared_disk: int
    separate_disk: int


def run(options: Options) -> Result:
    """Measure the first network of the scale, or all on the full one, at the first fork."""
    counts = options.pick((1, 2, 4, 8, 16, 32), (1, 4, 8), (2,))
    repeats = options.pick(3, 1, 1)
    found: list[_Footprint] = []
    for network in networks(options)[: options.pick(None, 1, 1)]:
        options.say(f"Making {max(counts)} tasks of {network.name}")
        family = network_cache(options).family(network, network.forks[0], max(counts))
        for count in counts:
            options.say(f"Measuring {count} tasks of {network.name}")
            found.append(_measure(network, first_tasks(family, count), repeats))
    words = " ".join((__doc__ or "").strip().split("\n\n")[1].split())
    return Result(_headline(found), (_table(found, repeats),), tuple(_plots(found)), (RANDOM_WEIGHTS, words))


def _measure(network: TimmNetwork, family: Family, repeats: int) -> _Footprint:
    """Return the medians of `repeats` processes each."""
    repository, names = family.repository, list(family.networks)
    models = [repository.path / name for name in (*repository.segments, *repository.tasks)]
    return _Footprint(
        network.name,
        network.forks[0],
        len(names),
        shared=int(median(shared_resident(repository.path, names) for _ in range(repeats))),
        separate=int(median(separate_resident(family.networks.values()) for _ in range(repeats))),
        shared_disk=sum(_bytes(folder) for folder in models),
        separate_disk=sum(file.stat().st_size for file in family.networks.values()),
    )


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _headline(found: Sequence[_Footprint]) -> str:
    """Return a sentence for each network, of its largest number of tasks."""
    last = {one.network: one for one in found}
    return " ".join(
        f"{one.tasks} tasks of {one.network} take {one.shared / 1e6:,.0f} MB of memory with a shared trunk and "
        f"{one.separate / 1e6:,.0f} MB as separate networks, {one.separate / one.shared:.1f} times as much."
        for one in last.values()
    )


def _table(found: Sequence[_Footprint], repeats: int) -> Table:
    columns = (
        Column("network", "network"),
        Column("fork", "fork"),
        Column("tasks", "tasks", Unit.number),
        Column("shared", "memory, shared", Unit.bytes),
        Column("separate", "memory, separate", Unit.bytes),
        Column("memory_ratio", "ratio", Unit.ratio),
        Column("shared_disk", "disk, shared", Unit.bytes),
        Column("separate_disk", "disk, separate", Unit.bytes),
        Column("disk_ratio", "ratio", Unit.ratio),
    )
    rows: list[dict[str, Cell]] = [
        {**vars(one), "memory_ratio": one.separate / one.shared, "disk_ratio": one.separate_disk / one.shared_disk}
        for one in found
    ]
    processes = f"the median of {repeats} processes" if repeats > 1 else "one process"
    return Table("Memory and disk", columns, tuple(rows), f"Resident bytes beyond the bare process, {processes} each.")


def _plots(found: Sequence[_Footprint]) -> list[Plot]:
    plots = []
    for network in dict.fromkeys(one.network for one in found):
        group = [one for one in found if one.network == network]
        tasks = tuple(float(one.tasks) for one in group)
        series = (
            Series("shared", tasks, tuple(one.shared / 1e6 for one in group)),
            Series("separate", tasks, tuple(one.separate / 1e6 for one in group)),
        )
        detail = f"Each task has {group[0].fork} and a head of its own."
        plots.append(Plot(f"memory-{network}", f"{network}: resident memory", detail, "tasks", "MB", series))
    return plots
