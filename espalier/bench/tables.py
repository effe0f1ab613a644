"""Tables of benchmarks for a terminal."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table as RichTable

from benchmarks.suite.result import Table
from espalier.bench.cells import heading, is_left, shown_columns, table_words


def rich_table(table: Table) -> RichTable:
    """Return `table` as the terminal shows it."""
    shown = RichTable(title=escape(table.title), title_justify="left", caption=escape(table.caption), caption_justify="left")
    for column in shown_columns(table):
        shown.add_column(escape(heading(column)), justify="left" if is_left(column) else "right")
    for words in table_words(table):
        shown.add_row(*map(escape, words))
    return shown
