"""Fair timing on machines whose speed drifts: variants take turns, and medians with their spread are reported."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Timing:
    """How long one variant took: median and quartiles over `runs` runs, in milliseconds."""

    median_ms: float
    low_ms: float
    high_ms: float
    runs: int

    def __str__(self) -> str:
        return f"{self.median_ms:.2f} ms ({self.low_ms:.2f}-{self.high_ms:.2f})"


Variants = Mapping[str, Callable[[], Awaitable[object]]]
Clock = Callable[[], float]


async def interleave(
    variants: Variants, rounds: int = 50, warmup: int = 5, clock: Clock = time.perf_counter
) -> dict[str, Timing]:
    """Return the timing of each of `variants`, run in turn (A B C A B C ...) so that a drift of the machine meets all of them alike.

    rounds: counted runs of each; warmup: uncounted runs of each before. clock: seconds; time.thread_time for work of one thread on a
    machine that others use.
    """
    samples = await take_samples(variants, rounds, warmup, clock=clock)
    return {name: summarise(seconds) for name, seconds in samples.items()}


async def take_samples(
    variants: Variants, rounds: int = 50, warmup: int = 5, pause_s: float = 0.0, clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each counted run of each of `variants`, as `interleave` runs them.

    pause_s: before each run, so that threads of the one before that still spin come to rest.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(-warmup, rounds):
        for name, run in variants.items():
            if pause_s:
                await asyncio.sleep(pause_s)
            started = clock()
            await run()
            if turn >= 0:
                seconds[name].append(clock() - started)
    return seconds


def summarise(seconds: Sequence[float]) -> Timing:
    """Return median and quartiles."""
    low, median, high = np.percentile(np.array(seconds) * 1000, [25, 50, 75])
    return Timing(float(median), float(low), float(high), len(seconds))
