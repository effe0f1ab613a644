"""Says when the machine was busy with something else, by a rule that was fixed beforehand.

A null loop, always the same work, is timed before and after each measurement, and what others have worked on the same cores meanwhile is
taken from the kernel. Where the loops differ by more than 10 %, or others had more than 10 % of the cores' time, the measurement is made
once more; where it is so again, it is marked as noisy and stays.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

from benchmarks.harness.foreign_work import foreign_seconds, mark_ours

LIMIT = 0.10
RULE = (
    "A null loop (SHA-256 of 16 MB on as many threads as are measured) is timed before and after each measurement, and on Linux the "
    "time is counted that other processes, or a virtual machine's host, take on the same cores meanwhile. Where the loops differ by more "
    "than 10 %, or others had more than 10 % of the cores' time, the measurement is made once more; where it is so again, it is marked "
    "as noisy. What slows a machine down from beginning to end without taking its time, such as heat or neighbours in its caches, goes "
    "unnoticed: quartiles far apart tell of it."
)
_BYTES = 16_000_000
_RUNS = 9

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class NoiseWatch:
    """What tells of noise. null: seconds of the null loop; foreign: seconds of `cores` cores that others have had since some moment."""

    null: Callable[[], float]
    foreign: Callable[[], float] = lambda: 0.0
    cores: int = 1


@dataclass(frozen=True)
class Measurement(Generic[_Value]):
    """A measurement.

    drift: of the null loop from before to after it, 0.1 is 10 %. others: what they had of the cores' time. runs: 2 where it was made
    once more.
    """

    value: _Value
    drift: float
    runs: int
    others: float = 0.0

    @property
    def noisy(self) -> bool:
        """Whether the machine was not quiet, even in the second run."""
        return max(self.drift, self.others) > LIMIT

    @property
    def mark(self) -> str:
        """Return what is written beside the row."""
        causes = {"null loop": self.drift, "others": self.others}
        found = ", ".join(f"{name} {share:.0%}" for name, share in causes.items() if share > LIMIT)
        return f"noisy ({found})" if found else ""

    @property
    def cells(self) -> dict[str, str | float]:
        """Return what a row holds of the noise: `noise` for its table, the rest for the JSON file."""
        return {"noise": self.mark, "drift": self.drift, "others": self.others}


NOTHING_WATCHED = NoiseWatch(lambda: 1.0)


def watch_cores(threads: int) -> NoiseWatch:
    """Return what watches the cores that this process may use, with a null loop of so many threads."""
    mark_ours()
    data = bytes(_BYTES)

    def null() -> float:
        with ThreadPoolExecutor(threads) as pool:
            return median(_timed(pool, data, threads) for _ in range(_RUNS))

    cores = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset[int]()
    return NoiseWatch(null, lambda: foreign_seconds(cores), max(1, len(cores)))


def _timed(pool: ThreadPoolExecutor, data: bytes, threads: int) -> float:
    started = time.perf_counter()
    for future in [pool.submit(hashlib.sha256, data) for _ in range(threads)]:  # hashing releases Python's lock
        future.result()
    return time.perf_counter() - started


def measure_quietly(measure: Callable[[], _Value], watch: NoiseWatch) -> Measurement[_Value]:
    """Return what `measure` gives, by the rule above."""
    first = _watched(measure, watch, 1)
    return _watched(measure, watch, 2) if first.noisy else first


def _watched(measure: Callable[[], _Value], watch: NoiseWatch, runs: int) -> Measurement[_Value]:
    before = watch.null()
    started, foreign = time.perf_counter(), watch.foreign()
    value = measure()
    had, offered = watch.foreign() - foreign, (time.perf_counter() - started) * watch.cores
    after = watch.null()
    return Measurement(value, max(before, after) / min(before, after) - 1, runs, max(0.0, had / offered))
