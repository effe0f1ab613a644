"""The demo's tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from benchmarks.latency.compare import LatencyComparison
from benchmarks.memory.measure import MemoryComparison
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE
from contract.costs import separate_cost, shared_cost
from contract.repository import Repository
from contract.units import human_bytes, human_macs, percent
from espalier.demo.query import Query
from espalier.demo.tune import TunedTask


def accuracy_table(tuned: Sequence[TunedTask]) -> Table:
    """Return the test accuracy of each task as it was tuned, beside linear probing and full finetuning of the same budget."""
    table = Table(title="Test accuracy (same training data and epochs)", title_justify="left")
    for heading in ("task", "what is new", "tuned", "SubTuning", "probe", "full"):
        table.add_column(heading, justify="right" if heading not in ("task", "what is new", "tuned") else "left")
    table.caption = "probe: a new head alone; full: all weights finetuned"
    table.caption_justify = "left"
    for item in tuned:
        subset = ", ".join(item.checkpoint.subset) or "head only"
        scores = (item.subtuning, item.probe, item.full)
        table.add_row(item.task.name, item.task.what, subset, *(f"{percent(score)} %" for score in scores))
    return table


def queries_table(queries: Sequence[Query], repository: Repository) -> Table:
    """Return each query with its difference from the separate networks and how often the trunk ran for it."""
    trunk = next(iter(repository.tasks.values())).steps[0].segment
    table = Table(title=f"Queries (the trunk is {trunk})", title_justify="left")
    for heading in ("client", "asked for", "difference", "trunk runs", "segments run"):
        table.add_column(heading, justify="left" if heading in ("client", "asked for") else "right")
    for query in queries:
        table.add_row(
            escape(query.client),
            escape(", ".join(query.tasks)),
            f"{query.difference:.0e}",
            str(query.runs.get(trunk, 0)),
            f"{sum(query.runs.values())} of {len(repository.segments)}",
        )
    table.caption = "difference: from the separate networks' outputs, as a share of the largest output"
    table.caption_justify = "left"
    return table


_WAYS = {SEPARATE: "one after another with all threads", SIDE_BY_SIDE: "side by side"}


def winnings_table(repository: Repository, latency: LatencyComparison, memory: MemoryComparison) -> Table:
    """Return MACs, latency, memory and disk of one request for all tasks, shared against separate networks."""
    names = list(repository.tasks)
    shared, separate = shared_cost(repository, names), separate_cost(repository, names)
    table = Table(title=f"One image, all {len(names)} tasks", title_justify="left")
    for heading in ("", "shared trunk", f"{len(names)} separate networks", "ratio"):
        table.add_column(heading, justify="right" if heading else "left")

    def row(what: str, ours: str, theirs: str, ratio: float) -> None:
        table.add_row(what, ours, theirs, f"{ratio:.2f}x")

    row("compute", human_macs(shared.macs), human_macs(separate.macs), separate.macs / shared.macs)
    row("latency", str(latency.shared), str(latency.separate), latency.speedup)
    table.caption = (
        f"latency: median (quartiles) of {latency.shared.runs} interleaved runs; separate networks as they are fastest here, "
        f"{_WAYS[latency.way]}; GFLOPs = 2 x GMACs"
    )
    table.caption_justify = "left"
    row("resident memory", *_bytes(memory.shared_resident, memory.separate_resident))
    row("weights", *_bytes(shared.weight_bytes, separate.weight_bytes))
    row("disk", *_bytes(memory.shared_disk, memory.separate_disk))
    return table


def _bytes(ours: int, theirs: int) -> tuple[str, str, float]:
    return human_bytes(ours), human_bytes(theirs), theirs / ours
