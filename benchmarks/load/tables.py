"""What the load benchmark has found, as tables and a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.framework.result import Cell, Column, Plot, Series, Style, Table, Unit
from benchmarks.load.bare import EngineSetting
from benchmarks.load.loadgen import LoadgenResult, Scenario
from benchmarks.load.measure import MeasuredLoad, Share, Wall


def loads_table(title: str, found: Sequence[MeasuredLoad], caption: str) -> Table:
    """Return a row for each load."""
    columns = (
        Column("wire", "over"),
        Column("mix", "tasks"),
        Column("clients", "connections", Unit.number),
        Column("offered_per_s", "offered", Unit.per_s),
        Column("per_s", "answered", Unit.per_s),
        *(Column(f"p{percent}_ms", f"p{percent}", Unit.ms) for percent in (50, 90, 95, 99)),
        Column("failed", "without answer", Unit.number),
        Column("noise", ""),
    )
    return Table(title, columns, tuple(_load_row(measured) for measured in found), caption)


def _load_row(measured: MeasuredLoad) -> dict[str, Cell]:
    point = measured.point.value
    return {
        "wire": str(measured.wire),
        "mix": measured.mix,
        "clients": point.clients,
        "offered_per_s": point.offered_per_s or None,
        "per_s": point.per_s,
        **(vars(point.latency) if point.latency else dict.fromkeys(f"p{percent}_ms" for percent in (50, 90, 95, 99))),
        "failed": point.sent - point.answered,
        **measured.point.cells,
    }


def walls_table(walls: Sequence[Wall]) -> Table:
    """Return the knee of each wire."""
    columns = (
        Column("wire", "over"),
        Column("unloaded_p99_ms", "p99 of one client", Unit.ms),
        Column("most_per_s", "most in a closed loop", Unit.per_s),
        Column("knee_per_s", "knee of the open loop", Unit.per_s),
    )
    rows = tuple({**vars(wall), "wire": str(wall.wire), "knee_per_s": wall.knee_per_s or None} for wall in walls)
    return Table(
        "Where it stops keeping up",
        columns,
        rows,
        "Requests a second. A knee at the largest rate tried may lie higher. Without one: not even the smallest.",
    )


def bare_table(bare: Mapping[EngineSetting, float], setting: EngineSetting, shares: Sequence[Share], clients: int) -> Table:
    """Return the bare engine's throughput by setting, and the server's beside that of `setting`, which it had."""
    columns = (
        Column("what", "what"),
        Column("setting", "instances x threads"),
        Column("per_s", "answers", Unit.per_s),
        Column("share", "of the bare engine beside it", Unit.share),
        Column("spread", "by round"),
    )
    none: dict[str, Cell] = {"share": None, "spread": None}
    rows: list[dict[str, Cell]] = []
    for tried, rate in sorted(bare.items(), key=lambda item: -item[1]):
        rows.append({"what": "bare engine", "setting": str(tried), "per_s": rate, **none})
    for share in shares:
        served = sorted(share.served_per_s)[len(share.served_per_s) // 2]
        spread = f"{min(share.shares):.0%} to {max(share.shares):.0%}"
        rows.append(
            {"what": f"server, {share.wire}", "setting": str(setting), "per_s": served, "share": share.share, "spread": spread}
        )
    rounds = len(shares[0].shares)
    caption = f"{clients} callers, one row each. Server and bare engine take turns; the share is the median of {rounds} rounds."
    return Table("The bare engine's throughput and the server's", columns, tuple(rows), caption)


def scenarios_table(found: Sequence[LoadgenResult], wire: str) -> Table:
    """Return what LoadGen says."""
    columns = (
        Column("scenario", "scenario"),
        Column("p90_result_ms", "result: p90", Unit.ms),
        Column("per_s", "result: answers", Unit.per_s),
        *(Column(f"p{percent}_ms", f"p{percent}", Unit.ms) for percent in (50, 90, 99)),
        Column("in_time", "within the limit"),
        Column("valid", "valid by its rules"),
        Column("failed", "without answer", Unit.number),
    )
    caption = (
        f"Over {wire}. LoadGen decides when requests are sent; valid also means long enough for MLPerf, which short runs are not."
    )
    return Table("MLPerf LoadGen", columns, tuple(_scenario_row(result) for result in found), caption)


def _scenario_row(result: LoadgenResult) -> dict[str, Cell]:
    single = result.scenario is Scenario.single
    return {
        "scenario": str(result.scenario),
        "p90_result_ms": result.figure if single else None,
        "per_s": None if single else result.figure,
        "p50_ms": result.p50_ms,
        "p90_ms": result.p90_ms,
        "p99_ms": result.p99_ms,
        "in_time": None if result.in_time is None else "yes" if result.in_time else "no",
        "valid": "yes" if result.valid else "no",
        "failed": len(result.failures),
    }


def loads_plot(opened: Sequence[MeasuredLoad], walls: Sequence[Wall]) -> Plot:
    """Return p50 and p99 over the rate offered."""
    series = []
    for wall in walls:
        points = [measured.point.value for measured in opened if measured.wire is wall.wire]
        found = sorted((point.offered_per_s, point.latency) for point in points if point.latency is not None)
        rates = tuple(rate for rate, _ in found)
        series.append(Series(f"p99, {wall.wire}", rates, tuple(latency.p99_ms for _, latency in found)))
        series.append(Series(f"p50, {wall.wire}", rates, tuple(latency.p50_ms for _, latency in found), style=Style.dotted))
    knees = "; ".join(f"{wall.wire} {wall.knee_per_s:.0f}/s" for wall in walls if wall.knee_per_s)
    detail = f"Requests that arrive at random. Knee: {knees or 'below the smallest rate'}."
    return Plot("load-open", "Latency under load", detail, "requests offered a second", "milliseconds", tuple(series), log="y")
