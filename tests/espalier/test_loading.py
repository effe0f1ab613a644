"""A command that loads for seconds says so at once where a person may be looking, and nowhere else."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

import espalier.console
from espalier.console import loading, progress_bars


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], io.StringIO]:
    """Put a terminal, or none, in the place of stderr, and return what is written there."""

    def put(terminal: bool) -> io.StringIO:
        written = io.StringIO()
        monkeypatch.setattr(espalier.console, "errors", Console(file=written, force_terminal=terminal, width=80))
        return written

    return put


def test_what_is_loaded_is_shown_on_a_terminal_at_once_and_taken_back(shown: Callable[[bool], io.StringIO]) -> None:
    written = shown(True)
    with loading("the [backbone]"):
        assert "Loading the [backbone] ..." in written.getvalue()
        with loading("more"):
            assert "more" not in written.getvalue()
    assert written.getvalue().endswith("\x1b[2K")  # the line is empty again


def test_nothing_is_shown_to_a_file(shown: Callable[[bool], io.StringIO]) -> None:
    written = shown(False)
    with loading():
        pass
    with progress_bars() as report:
        report("Tuning", 1, 1)
    assert not written.getvalue().strip()


def test_bars_say_that_something_is_loaded_until_there_is_one(shown: Callable[[bool], io.StringIO]) -> None:
    written = shown(True)
    with progress_bars() as report:
        assert "Loading" in written.getvalue()
        with loading("the data"):  # beside bars there is no room
            pass
        assert "the data" not in written.getvalue()
        report("Tuning", 1, 2)
    with loading("the data"):  # they are over
        assert "Loading the data" in written.getvalue()


@pytest.mark.slow
def test_an_export_says_that_it_loads_before_it_has(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "espalier.cli", "export", "--task", "a=nowhere.onnx", "--out", "repo"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=its) as process:
        os.close(its)
        said = b""
        with suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 1000):
                said += piece
        assert process.stdout is not None
        assert not process.stdout.read()
    os.close(ours)
    assert process.returncode == 2
    assert 0 <= said.find(b"Loading ...") < said.find(b"Error:")
