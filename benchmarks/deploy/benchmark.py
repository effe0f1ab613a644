"""What deploys do to the other tasks: `benchmarks.deploy.timeline` on four tasks of a ResNet-50.

Steady load on three of them, an open loop at half of what the server answers, latencies counted from when each request was due. After
a quiet time come rounds in which the fourth is unloaded, loaded and asked once, in turn with rounds in which it is only asked; then it is
quiet again. What is loaded has been loaded before: its segments lie in the server's cache in optimised form, as when a task comes back. One
that is new is optimised first, which takes longer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict

import numpy as np

from benchmarks.deploy.results import Timeline
from benchmarks.deploy.results import TimelineOptions as TimelineOptions
from benchmarks.deploy.timeline import measure
from benchmarks.framework.options import Options
from benchmarks.framework.result import Cell, Column, Plot, Result, Series, Style, Table, Unit
from benchmarks.harness.noise import RULE, Measurement, measure_quietly
from benchmarks.harness.pinning import find_cores
from benchmarks.models.families import RANDOM_WEIGHTS, network_cache, networks
from benchmarks.models.tiny import write_tiny_family
from contract.repository import Repository

_BEYOND = 2  # requests that are to be above a percentile, lest it be the largest by another name


def tail(counts: Iterable[int]) -> int:
    """Return the percentile to compare groups of so many requests by: the 99th, or the 90th where one of them is too few for that."""
    return 99 if min(counts) >= 100 * _BEYOND else 90


def run(options: Options) -> Result:
    """Measure one timeline."""
    repository = _repository(options)
    deploys, quiet_s, pause_s = options.pick((60, 30.0, 1.0), (6, 6.0, 0.5), (2, 0.3, 0.0))
    how = TimelineOptions(
        task=list(repository.tasks)[-1],
        deploys=deploys,
        rate=options.pick(0.0, 0.0, 50.0),
        quiet_s=quiet_s,
        pause_s=pause_s,
        threads=options.threads,
    )
    options.say(f"Measuring {deploys} deploys")
    measurement = measure_quietly(lambda: measure(repository, how), options.watch())
    words = " ".join((__doc__ or "").strip().split("\n\n")[1].split())
    found = measurement.value
    return Result(
        _headline(found),
        (_table(measurement),),
        (_plot(found),),
        (RANDOM_WEIGHTS, words, find_cores().words, RULE),
        _failures(found),
        {"options": asdict(how), "rate": found.rate, "changes": [asdict(change) for change in found.changes]},
    )


def _repository(options: Options) -> Repository:
    if options.pick(False, False, True):
        return write_tiny_family(options.scratch / "tiny-deploy")
    network = networks(options)[0]
    return network_cache(options).family(network, network.forks[0], 4).repository


def _failures(found: Timeline) -> tuple[str, ...]:
    failed = f"{found.failed} of {len(found.requests)} requests of other tasks failed." if found.failed else ""
    changed = f"{found.changed} answers of other tasks changed." if found.changed else ""
    return tuple(sentence for sentence in (failed, changed) if sentence)


def _headline(found: Timeline) -> str:
    quiet, asked, beside = found.quiet_ms(), found.rounds_ms(deploys=False), found.rounds_ms(deploys=True)
    percent = _percent(found)
    return (
        f"While one task came and went {found.options.deploys} times, {found.failed} of {len(found.requests):,} requests of the others "
        f"failed and {found.changed} answers changed; their {percent}th percentile was "
        f"{_at(beside, percent) / _at(quiet, percent):.2f} times the quiet one and "
        f"{_at(beside, percent) / _at(asked, percent):.2f} times that of rounds in which the task was only asked."
    )


def _percent(found: Timeline) -> int:
    return tail(len(group) for group in (found.quiet_ms(), found.rounds_ms(deploys=False), found.rounds_ms(deploys=True)))


def _table(measurement: Measurement[Timeline]) -> Table:
    found = measurement.value
    percent = _percent(found)
    quiet = _at(found.quiet_ms(), percent)
    columns = (
        Column("what", ""),
        Column("p50", "median", Unit.ms),
        Column("tail", f"{percent}th percentile", Unit.ms),
        Column("largest", "largest", Unit.ms),
        Column("count", "number", Unit.number),
        Column("ratio", f"p{percent} over quiet", Unit.ratio),
        Column("noise", ""),
    )
    others = {
        "quiet": found.quiet_ms(),
        "beside a task that is only asked": found.rounds_ms(deploys=False),
        "beside deploys": found.rounds_ms(deploys=True),
        "during a change": found.during_changes_ms(),
    }
    loads = [change for change in found.changes if change.action == "load"]
    changes = {
        "a load": [1000 * change.seconds for change in loads],
        "from load to first answer": [1000 * change.first_answer_s for change in loads],
        "an unload": [1000 * change.seconds for change in found.changes if change.action == "unload"],
    }
    ratios = {what: _at(values, percent) / quiet if values else None for what, values in others.items()}
    rows = [_row(what, values, percent, ratios.get(what), measurement) for what, values in (others | changes).items()]
    caption = f"Requests of other tasks at {found.rate:.1f} a second, and what the changes took."
    if percent < 99:
        caption += f" Too few requests for a 99th percentile: the {percent}th stands in for it."
    return Table("Latency beside deploys", columns, tuple(rows), caption)


def _row(
    what: str, values: Sequence[float], percent: int, ratio: float | None, measurement: Measurement[Timeline]
) -> dict[str, Cell]:
    noise: dict[str, Cell] = {**measurement.cells}
    if not values:
        return {"what": what, "p50": None, "tail": None, "largest": None, "count": 0, "ratio": None, **noise}
    middle = float(np.median(values))
    return {
        "what": what,
        "p50": middle,
        "tail": _at(values, percent),
        "largest": max(values),
        "count": len(values),
        "ratio": ratio,
        **noise,
    }


def _at(values: Sequence[float], percent: int) -> float:
    return float(np.percentile(values, percent)) if values else float("nan")


def _plot(found: Timeline) -> Plot:
    due = tuple(request.due_s for request in found.requests)
    latency = tuple(request.latency_ms for request in found.requests)
    percent = _percent(found)
    series = (
        Series(f"{found.options.deploys} deploys", found.deploys, (0.0, 0.0), style=Style.span),
        Series("a request of another task", due, latency, style=Style.points),
        Series(f"{percent}th percentile when quiet", (0.0, max(due)), (_at(found.quiet_ms(), percent),) * 2, style=Style.dashed),
    )
    title = "Latency of the other tasks while one comes and goes"
    detail = f"{found.rate:.1f} requests a second, latency from when each was due."
    return Plot("deploy-timeline", title, detail, "seconds", "milliseconds", series)
