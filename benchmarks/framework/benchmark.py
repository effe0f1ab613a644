"""What the suite knows of a benchmark before it is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from benchmarks.framework.options import Options
from benchmarks.framework.result import Result

RunBenchmark = Callable[[Options], Result]


@dataclass(frozen=True)
class Benchmark:
    """module: that holds `run`; it is imported when it is needed, for most need torch. about: one line for people.

    precise: whether it measures other precisions than fp32, too. chooses: whether it can be told to measure a part of what it compares.
    counts: whether it can be told how many runs of each variant to make.
    """

    name: str
    about: str
    module: str
    precise: bool = False
    chooses: bool = False
    counts: bool = False

    def load(self) -> RunBenchmark:
        """Return the function. Raises ModuleNotFoundError when something that it needs is not installed."""
        run: RunBenchmark = import_module(self.module).run
        return run
