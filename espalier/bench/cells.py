"""Numbers of benchmarks in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from benchmarks.framework.result import Cell, Column, Table, Unit
from benchmarks.harness.timing import Timing
from contract.units import human_bytes, human_macs, percent

MISSING = "\N{EN DASH}"
_LEFT = (Unit.text,)

_WORDS: Mapping[Unit, Callable[[float], str]] = MappingProxyType(
    {
        Unit.text: str,
        Unit.number: "{:,.0f}".format,
        Unit.macs: lambda value: human_macs(round(value)),
        Unit.bytes: lambda value: human_bytes(round(value)),
        Unit.ms: lambda value: f"{value:.{_digits(value)}f}",
        Unit.ratio: lambda value: f"{value:.2f}x",
        Unit.share: lambda value: f"{percent(value)} %",
        Unit.per_s: lambda value: f"{value:,.{int(value < 100)}f}/s",
    }
)


def cell_words(cell: Cell, unit: Unit, *, spread: bool = True) -> str:
    """Return a cell as people read it. spread: whether with the quartiles of a time."""
    if cell is None:
        return MISSING
    if isinstance(cell, Timing):
        digits = _digits(cell.median_ms)
        if not spread:
            return f"{cell.median_ms:.{digits}f}"
        return f"{cell.median_ms:.{digits}f} ({cell.low_ms:.{digits}f}{MISSING}{cell.high_ms:.{digits}f})"
    return cell if isinstance(cell, str) else _WORDS[unit](cell)


def shown_columns(table: Table) -> tuple[Column, ...]:
    """Return the columns in which some row has something."""
    return tuple(column for column in table.columns if any(row.get(column.key) not in (None, "") for row in table.rows))


def table_words(table: Table, *, spread: bool = True) -> list[list[str]]:
    """Return the cells of the columns that are shown, row by row. spread: whether times have their quartiles."""
    columns = shown_columns(table)
    return [[cell_words(row.get(column.key), column.unit, spread=spread) for column in columns] for row in table.rows]


def heading(column: Column) -> str:
    """Return the words above a column, with the unit of times."""
    return f"{column.heading}, ms" if column.unit is Unit.ms else column.heading


def is_left(column: Column) -> bool:
    """Whether the column stands at the left: words do, numbers stand at the right."""
    return column.unit in _LEFT


def markdown(tables: Sequence[Table]) -> str:
    """Return `tables` in Markdown."""
    return "\n".join(line for table in tables for line in _markdown_lines(table))


def _markdown_lines(table: Table) -> list[str]:
    columns = shown_columns(table)
    rows = [
        [heading(column) for column in columns],
        [":--" if is_left(column) else "--:" for column in columns],
        *([word.replace("|", "\\|") for word in words] for words in table_words(table)),
    ]
    return [f"### {table.title}", "", *(f"| {' | '.join(row)} |" for row in rows), "", table.caption, ""]


def _digits(milliseconds: float) -> int:
    return 1 if milliseconds >= 10 else 2
