"""Tables of benchmarks for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from benchmarks.framework.result import Column, Table
from espalier.bench.cells import heading, is_left, shown_columns, table_words

_GAP = 2  # characters between columns
_NAME = 12  # characters of a word that stand in one line at least


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
