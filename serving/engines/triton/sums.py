"""What segments have done on several Tritons, added up from Triton's own statistics."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving.engines.base import BatchStatistics, SegmentStatistics
from serving.observe.histogram import DURATION_BOUNDS_S, Histogram

_NUMBERS = ("runs", "requests", "compute_ns", "queue_ns")


@dataclass(frozen=True)
class _Counts:
    """Counters of one model, or what they have grown by. numbers: under _NUMBERS. batches: rows -> (runs, nanoseconds)."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    batches: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    last_run_ms: int = 0

    def __add__(self, other: _Counts) -> _Counts:
        return self._with(other, 1)

    def __sub__(self, other: _Counts) -> _Counts:
        return self._with(other, -1)

    def _with(self, other: _Counts, sign: int) -> _Counts:
        numbers = {name: self.numbers.get(name, 0) + sign * other.numbers.get(name, 0) for name in _NUMBERS}
        batches: dict[int, tuple[int, int]] = {}
        for rows in self.batches.keys() | other.batches.keys():
            (runs, ns), (other_runs, other_ns) = (counts.batches.get(rows, (0, 0)) for counts in (self, other))
            batches[rows] = (runs + sign * other_runs, ns + sign * other_ns)
        batches = {rows: counted for rows, counted in batches.items() if counted[0]}
        # One that has not run since has not run for us.
        last_run_ms = self.last_run_ms if sign < 0 else max(self.last_run_ms, other.last_run_ms)
        return _Counts(numbers, batches, last_run_ms if numbers["runs"] else 0)


class TritonSums:
    """Adds up, for each server and model, what has come since `begin`. Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun: dict[tuple[object, str], _Counts] = {}
        self._now: dict[tuple[object, str], _Counts] = {}
        self._before: dict[str, _Counts] = {}

    def begin(self, server: object, response: Any, afresh: bool = True) -> None:
        """Count from here what `server` does, its ModelStatisticsResponse being `response`: warming up was not for requests.

        afresh: it may have started again, at nought; what it had done before is kept. Else only models are new that were not known.
        """
        with self._lock:
            for message in response.model_stats:
                key = server, message.name
                if afresh or key not in self._begun:
                    self._before[message.name] = self._before.get(message.name, _Counts()) + self._now.pop(key, _Counts())
                    self._begun[key] = _counts(message)

    def update(self, server: object, response: Any) -> None:
        """Take the ModelStatisticsResponse of `server`."""
        with self._lock:
            for message in response.model_stats:
                key = server, message.name
                self._now[key] = _counts(message) - self._begun.setdefault(key, _Counts())

    def forget(self, names: Collection[str]) -> None:
        """Drop what is known of models that are unloaded. One that is loaded again counts from nought."""
        with self._lock:
            for counts in (self._begun, self._now):
                for key in [key for key in counts if key[1] in names]:
                    del counts[key]
            for name in names:
                self._before.pop(name, None)

    def totals(self, names: frozenset[str]) -> Mapping[str, SegmentStatistics]:
        """Return the sums of the models `names`, zeros included."""
        with self._lock:
            sums = {name: self._before.get(name, _Counts()) for name in names}
            for (_, name), counts in self._now.items():
                if name in names:
                    sums[name] += counts
        return {name: _statistics(counts) for name, counts in sums.items()}


def _counts(message: Any) -> _Counts:
    # Its inference_stats count a run once for every request in it; its batch_stats do not.
    batches = {
        batch.batch_size: (batch.compute_infer.count, batch.compute_infer.ns)
        for batch in message.batch_stats
        if batch.compute_infer.count
    }
    queue = message.inference_stats.queue
    numbers = (message.execution_count, queue.count, sum(ns for _, ns in batches.values()), queue.ns)
    return _Counts(dict(zip(_NUMBERS, numbers, strict=True)), batches, message.last_inference)


def _statistics(counts: _Counts) -> SegmentStatistics:
    runs, requests, compute_ns, queue_ns = (counts.numbers.get(name, 0) for name in _NUMBERS)
    compute = [0] * len(Histogram().counts)
    for times, ns in counts.batches.values():
        compute[_bucket(times, ns)] += times
    queue = [0] * len(compute)
    queue[_bucket(requests, queue_ns)] = requests
    return SegmentStatistics(
        runs=runs,
        rows=sum(rows * times for rows, (times, _) in counts.batches.items()),
        seconds=compute_ns / 1e9,
        last_run_ms=counts.last_run_ms,
        compute=Histogram(tuple(compute), compute_ns / 1e9),
        queue=Histogram(tuple(queue), queue_ns / 1e9),
        batches={rows: BatchStatistics(times, ns / 1e9) for rows, (times, ns) in sorted(counts.batches.items())},
    )


def _bucket(times: int, ns: int) -> int:
    """Return the bucket of the mean: Triton tells no more than sums."""
    return bisect_left(DURATION_BOUNDS_S, ns / 1e9 / max(1, times))
