"""Standard output and error of the command line, in whatever state they are: work that is done is not undone by what is said of it."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import IO, Literal, cast

from rich.console import Console


class Output(io.TextIOBase):
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


def open_console(output: Output) -> Console:
    """Return a console on `output` that shows text as it is: ":boom:" in a message or a path is no picture."""
    console = Console(file=cast("IO[str]", output), emoji=False)
    if console.width < 1:  # COLUMNS=0, as some terminals of editors say; nothing would be shown
        console.width = 80
    return console


def escape_what_cannot_be_encoded() -> None:
    """Let the process's streams write \\xe4 for a letter that their encoding has not, and for bytes of file names that are no text."""
    for stream in (sys.stdout, sys.stderr):
        # In a C locale Python lets bytes of file names through, but no letter that is not ASCII.
        if isinstance(stream, io.TextIOWrapper) and (stream.errors == "strict" or "utf" not in stream.encoding.lower()):
            stream.reconfigure(errors="backslashreplace")
