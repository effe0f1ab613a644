"""Tables of benchmarks: their cells in words, for a terminal, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

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
_GAP = 2  # characters between columns
_NAME = 12  # characters of a word that stand in one line at least


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


def show_table(table: Table, console: Console) -> None:
    """Print `table`, medians without quartiles. One that is too wide for the terminal is printed all the same, with nothing cut off."""
    shown = _rich_table(table)
    least = sum(_GAP + (column.min_width or 0) for column in shown.columns)
    if least > console.width:
        shown.width = least
    console.print(shown, crop=False, no_wrap=True, overflow="ignore")


def _rich_table(table: Table) -> RichTable:
    shown = RichTable(
        title=escape(table.title),
        title_justify="left",
        caption=escape(table.caption),
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    rows = table_words(table, spread=False)
    for place, column in enumerate(shown_columns(table)):
        least = _least_width(column, [words[place] for words in rows])
        shown.add_column(
            escape(heading(column)), justify="left" if is_left(column) else "right", min_width=least, overflow="fold"
        )
    for words in rows:
        shown.add_row(*map(escape, words))
    return shown


def _least_width(column: Column, cells: Sequence[str]) -> int:
    """Return the characters below which a number would be broken, or a name too often."""
    if is_left(column):
        return min(_NAME, max(len(word) for cell in (heading(column), *cells) for word in cell.split() or [""]))
    return max(*(len(word) for word in heading(column).split()), *map(len, cells))
