"""What segments have done on several Tritons, added up from Triton's own statistics."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from contract.histogram import DURATION_BOUNDS_S, Histogram
from serving.engines.base import BatchStatistics, RequestSeconds, SegmentStatistics

_NUMBERS = ("runs", "requests", "total_ns", "queue_ns", "input_ns", "infer_ns", "output_ns")
_NONE = (0, 0, 0, 0)


@dataclass(frozen=True)
class _Counts:
    """Counters of one model, or what they have grown by. numbers: under _NUMBERS.

    batches: rows -> runs, and nanoseconds of them: computing, before, after.
    """

    numbers: Mapping[str, int] = field(default_factory=dict)
    batches: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    last_run_ms: int = 0

    def __add__(self, other: _Counts) -> _Counts:
        return self._with(other, 1)

    def __sub__(self, other: _Counts) -> _Counts:
        return self._with(other, -1)

    def _with(self, other: _Counts, sign: int) -> _Counts:
        numbers = {name: self.numbers.get(name, 0) + sign * other.numbers.get(name, 0) for name in _NUMBERS}
        batches = {
            rows: tuple(a + sign * b for a, b in zip(self.batches.get(rows, _NONE), other.batches.get(rows, _NONE), strict=True))
            for rows in self.batches.keys() | other.batches.keys()
        }
        batches = {rows: counted for rows, counted in batches.items() if counted[0]}
        # One that has not run since has not run for us.
        last_run_ms = self.last_run_ms if sign < 0 else max(self.last_run_ms, other.last_run_ms)
        return _Counts(numbers, batches, last_run_ms if numbers["runs"] else 0)


class TritonStatistics:
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
        batch.batch_size: (batch.compute_infer.count, batch.compute_infer.ns, batch.compute_input.ns, batch.compute_output.ns)
        for batch in message.batch_stats
        if batch.compute_infer.count
    }
    stats = message.inference_stats
    durations = (stats.success, stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    numbers = (message.execution_count, stats.queue.count, *(duration.ns for duration in durations))
    return _Counts(dict(zip(_NUMBERS, numbers, strict=True)), batches, message.last_inference)


def _statistics(counts: _Counts) -> SegmentStatistics:
    runs, requests, *nanoseconds = (counts.numbers.get(name, 0) for name in _NUMBERS)
    total_s, queue_s, input_s, infer_s, output_s = (ns / 1e9 for ns in nanoseconds)
    batches = {
        rows: BatchStatistics(times, *(ns / 1e9 for ns in spent)) for rows, (times, *spent) in sorted(counts.batches.items())
    }
    compute, queue = [0] * len(Histogram().counts), [0] * len(Histogram().counts)
    for batch in batches.values():
        compute[_bucket(batch.runs, batch.seconds)] += batch.runs
    queue[_bucket(requests, queue_s)] = requests
    seconds = sum(batch.seconds for batch in batches.values())
    return SegmentStatistics(
        runs=runs,
        rows=sum(rows * batch.runs for rows, batch in batches.items()),
        seconds=seconds,
        last_run_ms=counts.last_run_ms,
        compute=Histogram(tuple(compute), seconds),
        queue=Histogram(tuple(queue), queue_s),
        requests=RequestSeconds(total_s, input_s, infer_s, output_s),
        batches=batches,
    )


def _bucket(times: int, seconds: float) -> int:
    """Return the bucket of the mean: Triton tells no more than sums."""
    return bisect_left(DURATION_BOUNDS_S, seconds / max(1, times))
