"""Says when the machine was busy with something else, by a rule that was fixed beforehand.

A null loop, always the same work, is timed before and after each measurement. Where the two differ by more than 10 %, the measurement is
made once more; where they differ again, it is marked as noisy and stays. A machine that is as busy before as after, or busy only in
between, goes unnoticed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

from benchmarks.suite.options import Options, Scale

LIMIT = 0.10
RULE = (
    "A null loop (SHA-256 of 16 MB on as many threads as are measured) is timed before and after each measurement; where the two differ "
    "by more than 10 %, the measurement is made once more, and where they differ again it is marked as noisy. That does not notice a "
    "machine that is as busy before as after, or busy only in between: quartiles far apart and the load average tell of it."
)
_BYTES = 16_000_000
_RUNS = 9

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Settled(Generic[_Value]):
    """A measurement. drift: of the null loop from before to after it, 0.1 is 10 %. runs: 2 where it was made once more."""

    value: _Value
    drift: float
    runs: int

    @property
    def noisy(self) -> bool:
        """Whether the machine was not quiet, even in the second run."""
        return self.drift > LIMIT

    @property
    def mark(self) -> str:
        """Return what is written beside the row."""
        return f"noisy ({self.drift:.0%})" if self.noisy else ""


def null_loop(options: Options) -> Callable[[], float]:
    """Return a function that gives the seconds of the null loop: the median of nine runs. On the tiny scale nothing is watched."""
    data, threads = bytes(_BYTES), options.cores
    if options.scale is Scale.tiny:
        return lambda: 1.0

    def run() -> float:
        with ThreadPoolExecutor(threads) as pool:
            return median(_timed(pool, data, threads) for _ in range(_RUNS))

    return run


def _timed(pool: ThreadPoolExecutor, data: bytes, threads: int) -> float:
    started = time.perf_counter()
    for future in [pool.submit(hashlib.sha256, data) for _ in range(threads)]:  # hashing releases Python's lock
        future.result()
    return time.perf_counter() - started


def settle(measure: Callable[[], _Value], null: Callable[[], float]) -> Settled[_Value]:
    """Return what `measure` gives, by the rule above. null: seconds of the null loop."""
    first = _watch(measure, null, 1)
    return _watch(measure, null, 2) if first.noisy else first


def _watch(measure: Callable[[], _Value], null: Callable[[], float], runs: int) -> Settled[_Value]:
    before = null()
    value = measure()
    after = null()
    return Settled(value, max(before, after) / min(before, after) - 1, runs)
