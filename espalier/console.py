"""What the commands print with, on streams in whatever state they are: work that is done is not undone by what is said of it."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Literal, cast

from rich.console import Console
from rich.markup import escape


class OutputStream(io.TextIOBase):
    """The process's stream of that name, as it is at the moment. What nobody reads, or what cannot be written, is dropped.

    failure: why the first text was dropped, unless the reader just went away (`| head`).
    """

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self._name = name
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        """Write `text`."""
        try:
            if self._stream is not None:
                self._stream.write(text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Hand over what was written."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except OSError as error:
            self._drop(error)

    def isatty(self) -> bool:
        """Whether a person may be looking."""
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        """Return the number of the open file."""
        if self._stream is None:
            raise io.UnsupportedOperation("there is no such stream")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Return the name of the encoding, which decides whether lines are drawn in ASCII."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def _stream(self) -> IO[str] | None:
        stream = getattr(sys, self._name)  # None: it was closed before the process began
        return cast("IO[str] | None", getattr(stream, "rich_proxied_file", stream))  # while there are bars, rich stands before it

    def _drop(self, error: OSError) -> None:
        """From now on write to nowhere: the text that failed is still in the stream's buffer, and would fail again at the end."""
        if not isinstance(error, BrokenPipeError):
            self.failure = self.failure or error
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)


def open_console(output: OutputStream) -> Console:
    """Return a console on `output` that shows text as it is: ":boom:" in a message or a path is no picture."""
    console = Console(file=cast("IO[str]", output), emoji=False)
    if console.width < 1:  # COLUMNS=0, as some terminals of editors say; nothing would be shown
        console.width = 80
    return console


output = OutputStream("stdout")
console = open_console(output)
errors = open_console(OutputStream("stderr"))

Report = Callable[[str, int, int], None]


class _Busy:
    """Whether something is shown, beside which there is no room for anything else."""

    is_shown = False


_busy = _Busy()


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Yield a function `report(what, done, total)` that shows a bar for each `what`. The bars vanish when all is done.

    Until there is one, a bar without an end says that something is being loaded.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        bars = {}
        first = progress.add_task("Loading", total=None)
        _busy.is_shown = True

        def report(what: str, done: int, total: int) -> None:
            progress.update(first, visible=False)
            if what not in bars:
                bars[what] = progress.add_task(what, total=total)
            progress.update(bars[what], completed=done, total=total)

        try:
            yield report
        finally:
            _busy.is_shown = False


@contextmanager
def loading(what: str = "") -> Iterator[None]:
    """Show on a terminal that something is being loaded that takes seconds, the libraries of `espalier[export]` above all, and what."""
    if not errors.is_terminal or _busy.is_shown:
        yield
        return
    with errors.status("") as status:
        status.update(f"Loading {escape(what)} ..." if what else "Loading ...", spinner="dots")  # shown now, not at the next turn
        _busy.is_shown = True
        try:
            yield
        finally:
            _busy.is_shown = False


def say(sentence: str) -> None:
    """Print what a command waits for."""
    errors.print(escape(sentence), soft_wrap=True)


def print_data(data: object) -> None:
    """Print `data` as JSON."""
    console.out(json.dumps(data, indent=2, allow_nan=False), highlight=False)


def escape_what_cannot_be_encoded() -> None:
    """Let the process's streams write \\xe4 for a letter that their encoding has not, and for bytes of file names that are no text."""
    for stream in (sys.stdout, sys.stderr):
        # In a C locale Python lets bytes of file names through, but no letter that is not ASCII.
        if isinstance(stream, io.TextIOWrapper) and (stream.errors == "strict" or "utf" not in stream.encoding.lower()):
            stream.reconfigure(errors="backslashreplace")
