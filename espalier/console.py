"""What the commands print with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from espalier.output import Output, open_console

output = Output("stdout")
console = open_console(output)
errors = open_console(Output("stderr"))

Report = Callable[[str, int, int], None]


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Yield a function `report(what, done, total)` that shows a bar for each `what`. The bars vanish when all is done."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        bars = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)

        yield report


def say(sentence: str) -> None:
    """Print what a command waits for."""
    errors.print(escape(sentence), soft_wrap=True)


def print_data(data: object) -> None:
    """Print `data` as JSON."""
    console.out(json.dumps(data, indent=2, allow_nan=False), highlight=False)
