"""What a benchmark has found: tables and plots as data, to be kept as JSON and shown in any form later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from benchmarks.harness.timing import Timing

Cell = str | int | float | Timing | None  # None: not measured


class Unit(StrEnum):
    """What the numbers of a column are, and so how they are shown."""

    text = "text"
    number = "number"
    macs = "macs"
    bytes = "bytes"
    ms = "ms"  # a Timing, or a number
    ratio = "ratio"
    share = "share"  # 1 is all
    per_s = "per_s"


@dataclass(frozen=True)
class Column:
    """The key of a row's cell, the words above the column, and what stands in it."""

    key: str
    heading: str
    unit: Unit = Unit.text


@dataclass(frozen=True)
class Table:
    """Rows of cells by the columns' keys. A row may hold more than is shown. caption: how to read it."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Cell], ...]
    caption: str = ""


class Style(StrEnum):
    """How a series is drawn."""

    line = "line"
    points = "points"  # many, of one kind
    marks = "marks"  # some, with a colour and a shape of their own
    dashed = "dashed"  # what others are compared with
    dotted = "dotted"  # of the line before it, in its colour
    span = "span"  # from x[0] to x[1], shaded


@dataclass(frozen=True)
class Series:
    """Points (x, y) in order. low, high: quartiles of each y, or empty."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    style: Style = Style.line

    @classmethod
    def of_timings(cls, name: str, x: Sequence[float], timings: Sequence[Timing]) -> Series:
        """Return medians with their quartiles, in milliseconds."""
        median, low, high = ([getattr(timing, key) for timing in timings] for key in ("median_ms", "low_ms", "high_ms"))
        return cls(name, tuple(x), tuple(median), tuple(low), tuple(high))


@dataclass(frozen=True)
class Plot:
    """A picture of series over one x axis. name: of its files. log: the axes that are logarithmic, "", "x", "y" or "xy"."""

    name: str
    title: str
    detail: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    log: str = ""


@dataclass(frozen=True)
class Result:
    """What one benchmark has found.

    headline: the one sentence to remember. tables: the main one first, which is all that the terminal shows. notes: what a reader must
    know to judge it. failed: what is wrong, a sentence each; then the numbers are not to be used. raw: anything plain that allows other
    evaluations later, such as single times.
    """

    headline: str
    tables: tuple[Table, ...]
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Result:
        """Return what `to_data` was made of. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            data["headline"],
            tuple(_table(table) for table in data["tables"]),
            tuple(_plot(plot) for plot in data["plots"]),
            tuple(data["notes"]),
            tuple(data["failed"]),
            data["raw"],
        )


def _table(data: Mapping[str, Any]) -> Table:
    columns = tuple(Column(column["key"], column["heading"], Unit(column["unit"])) for column in data["columns"])
    rows = tuple({key: _cell(value) for key, value in row.items()} for row in data["rows"])
    return Table(data["title"], columns, rows, data["caption"])


def _cell(value: Any) -> Cell:
    return Timing(**value) if isinstance(value, Mapping) else value


def _plot(data: Mapping[str, Any]) -> Plot:
    return Plot(**{**data, "series": tuple(_series(series) for series in data["series"])})


def _series(data: Mapping[str, Any]) -> Series:
    numbers = {key: tuple(data[key]) for key in ("x", "y", "low", "high")}
    return Series(data["name"], **numbers, style=Style(data["style"]))
