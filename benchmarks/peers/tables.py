"""The rows as tables, plots and a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace

from benchmarks.framework.result import Cell, Column, Plot, Result, Series, Style, Table, Unit
from benchmarks.peers.measure import MeasurePlan, RivalRow
from benchmarks.peers.server import ON_OPENVINO, SEPARATE

_OURS = "espalier"
_WHO = (Column("peer", "peer"), Column("variant", "variant"), Column("protocol", "protocol"))
_NOISE = Column("noise", "")


def make_result(rows: Sequence[RivalRow], plan: MeasurePlan, notes: tuple[str, ...]) -> Result:
    """Return what was measured for people. notes: beside how much it was."""
    measured = [row for row in rows if row.latency]
    amount = (
        f"{plan.threads} threads a session; {plan.turns} turns of {plan.runs} requests of each kind, and {plan.throughput_turns} of "
        f"{plan.clients} clients at once."
    )
    return Result(
        headline(rows, plan.counts),
        (_latency_table(rows, plan.counts), throughput_table(rows, plan)),
        (_latency_plot(measured, plan.counts), _memory_plot(measured, max(plan.counts))) if measured else (),
        (*notes, amount, plan.cores.words),
        tuple(f"espalier could not be measured: {row.missing}." for row in rows if row.peer == _OURS and row.missing),
        json.loads(json.dumps({"plan": asdict(plan), "rows": [asdict(row) for row in rows]})),
    )


def _latency_table(rows: Sequence[RivalRow], counts: Sequence[int]) -> Table:
    """Return a line per row; those that could not be measured say why."""
    columns = (
        *_WHO,
        *(Column(f"ms_{count}", _tasks(count), Unit.ms) for count in counts),
        Column("memory", "memory", Unit.bytes),
        Column("lines", "lines", Unit.number),
        _NOISE,
        Column("missing", "not measured, or not to the end, because"),
    )
    caption = (
        "One client; median (quartiles). Memory: of all processes, what they share counted once. Lines: of code and configuration that a "
        "user writes."
    )
    return Table(
        "Latency of a request, memory, and what is to be written", columns, tuple(_latency(row) for row in rows), caption
    )


def throughput_table(rows: Sequence[RivalRow], plan: MeasurePlan) -> Table:
    """Return a line per row that was measured."""
    columns = (*_WHO, *(Column(f"per_s_{count}", _tasks(count), Unit.per_s) for count in plan.counts), _NOISE)
    found = tuple(
        {**_who(row), **{f"per_s_{count}": _countable(rate, plan) for count, rate in row.per_s.items()}}
        for row in rows
        if row.per_s
    )
    caption = (
        f"{plan.clients} clients, each with one request after the other, counted for {plan.seconds:g} s. Without a number: fewer answers "
        "than clients in that time, too slow to be counted so."
    )
    return Table("Requests per second", columns, found, caption)


def _countable(rate: float, plan: MeasurePlan) -> float | None:
    """Return `rate` unless it comes from fewer answers than clients: all may come just after the end, which would be called 0 a second."""
    return rate if round(rate * plan.seconds) >= plan.clients else None


def _latency_plot(rows: Sequence[RivalRow], counts: Sequence[int]) -> Plot:
    """Return each rival's fastest way to share a trunk, and the fastest with separate networks."""
    last = max(counts)
    shared = [_fastest(group, last) for group in _by_rival(row for row in rows if not _is_separate(row))]
    series = [_line(row, counts, f"{row.peer}, {row.protocol}", Style.line) for row in shared]
    separate = [row for row in rows if _is_separate(row)]
    if separate:
        best = _fastest(separate, last)
        series.append(_line(best, counts, f"separate networks: {best.peer}", Style.dashed))
    detail = "Each with its fastest trunk and heads; medians and quartiles of one client."
    return Plot("peers-latency", "Latency by the number of tasks asked for", detail, "tasks of a request", "ms", tuple(series))


def _memory_plot(rows: Sequence[RivalRow], last: int) -> Plot:
    """Return memory and latency of each rival, from separate networks to a shared trunk."""
    series = []
    for group in _by_rival(rows):
        kinds = [[row for row in group if _is_separate(row) is separate] for separate in (True, False)]
        points = [_fastest(kind, last) for kind in kinds if kind]
        megabytes, milliseconds = zip(*((row.memory_bytes / 1e6, row.latency[last].median_ms) for row in points), strict=True)
        series.append(Series(group[0].peer, megabytes, milliseconds))
    detail = f"A request for {_tasks(last)}. A line goes from separate networks to the shared trunk of the same peer."
    return Plot("peers-memory", "Memory and latency", detail, "MB of memory", "ms", tuple(series), "xy")


def headline(rows: Sequence[RivalRow], counts: Sequence[int]) -> str:
    """Return our best against the best of the others, for one client and for several, whoever is ahead."""
    last = max(counts)
    measured = [row for row in rows if row.latency]
    ours = [row for row in measured if row.peer == _OURS]
    if not ours:
        return "espalier was not measured."
    best = _fastest(ours, last)
    others = [row for row in measured if row.peer not in (_OURS, ON_OPENVINO)]
    shared, separate = (_against(best, [row for row in others if _is_separate(row) is kind], last) for kind in (False, True))
    many = "".join(f" {_most(ours, others, count)}" for count in (min(counts), last))
    return f"A request for {_tasks(last)} takes espalier {_ms(best, last)}{shared}{separate}.{many}"


def _most(ours: Sequence[RivalRow], others: Sequence[RivalRow], count: int) -> str:
    """Return who answers most to several clients, us and others."""
    us = max((row.per_s.get(count, 0.0) for row in ours), default=0.0)
    them = max(others, key=lambda row: row.per_s.get(count, 0.0), default=None)
    beside = "" if them is None else f", {them.peer} ({them.variant}) {them.per_s.get(count, 0.0):.1f}/s"
    return f"Asked for {_tasks(count)} by several clients at once, espalier answers {us:.1f}/s{beside}."


def _against(ours: RivalRow, rows: Sequence[RivalRow], count: int) -> str:
    if not rows:
        return ""
    best = _fastest(rows, count)
    ratio = best.latency[count].median_ms / ours.latency[count].median_ms
    how = SEPARATE if _is_separate(best) else "a shared trunk"
    return f"; {best.peer}, the fastest other with {how}, {_ms(best, count)}, {ratio:.2f} times that"


def _ms(row: RivalRow, count: int) -> str:
    return f"{row.latency[count].median_ms:.1f} ms"


def _who(row: RivalRow) -> dict[str, Cell]:
    who = {"peer": row.peer, "variant": row.variant, "version": row.version, "protocol": row.protocol}
    return {**who, "noise": row.mark, "turns": row.turns, "noisy_turns": row.noisy}


def _latency(row: RivalRow) -> dict[str, Cell]:
    started = row.memory_bytes > 0
    return {
        **_who(row),
        **{f"ms_{count}": timing for count, timing in row.latency.items()},
        "memory": row.memory_bytes if started else None,
        "lines": row.lines if started else None,
        "missing": row.missing,
    }


def _is_separate(row: RivalRow) -> bool:
    return row.variant.startswith(SEPARATE)


def _by_rival(rows: Iterable[RivalRow]) -> list[list[RivalRow]]:
    groups: dict[str, list[RivalRow]] = {}
    for row in rows:
        groups.setdefault(row.peer, []).append(row)
    return list(groups.values())


def _fastest(rows: Sequence[RivalRow], count: int) -> RivalRow:
    return min(rows, key=lambda row: row.latency[count].median_ms)


def _line(row: RivalRow, counts: Sequence[int], name: str, style: Style) -> Series:
    return replace(Series.of_timings(name, counts, [row.latency[count] for count in counts]), style=style)


def _tasks(count: int) -> str:
    return f"{count} task{'s' * (count > 1)}"
