"""Every error of the benchmarks, one sentence each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class BenchmarkError(Exception):
    """Anything that a benchmark refuses or fails at, with one sentence for the user."""


class UnknownBenchmark(BenchmarkError):
    """A name that no benchmark has."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"There is no benchmark {name!r}; give all, list or one of {', '.join(known)}.")


class PrecisionUnavailable(BenchmarkError):
    """Numbers in which the engine does not compute."""

    def __init__(self, precision: str, available: Iterable[str]) -> None:
        super().__init__(f"The engine has no networks in {precision}; what can be measured is {', '.join(available)}.")


class NotARecord(BenchmarkError):
    """A JSON file that no benchmark of this version has written."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is no result of this version's benchmarks; move it elsewhere, or run its benchmark again.")


class ResultNotWritten(BenchmarkError):
    """The folder of the results cannot be written to."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"The results cannot be written to {path} ({reason}); give --out a folder that can be written to.")
