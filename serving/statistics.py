"""Counts requests per model, as the v2 protocol's statistics and the metrics want them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

from contract.errors import EspalierError
from contract.histogram import EMPTY, DurationCounter, Histogram
from serving.engines.base import SegmentRun

MOST_GONE = 100  # versions served no longer whose counts are kept: one that comes back goes on where it was
ModelVersion = tuple[str, str]  # a model's name and its version


@dataclass(frozen=True)
class ModelStatistics:
    """Requests of one version of a model since the server started. `last_request_ms`: milliseconds since 1970; 0: never.

    pending: requests that are being answered. failures_by_reason: under the words of `failure_reason`. duration, queue, compute: of
    the successes: from checking to the answer, the waits of its segment runs added up, and their times added up.
    """

    successes: int = 0
    failures: int = 0
    success_ns: int = 0
    failure_ns: int = 0
    rows: int = 0
    last_request_ms: int = 0
    pending: int = 0
    failures_by_reason: Mapping[str, int] = field(default_factory=dict)
    duration: Histogram = EMPTY
    queue: Histogram = EMPTY
    compute: Histogram = EMPTY


def failure_reason(error: BaseException) -> str:
    """Return why a request failed, in one word of a small set: the name of our error's class, "Cancelled", or "Internal"."""
    if isinstance(error, EspalierError):
        return type(error).__name__
    return "Cancelled" if isinstance(error, asyncio.CancelledError) else "Internal"


class RequestCounter:
    """Sums up requests by model and version. Safe to use from several threads."""

    def __init__(self) -> None:
        self._sums: dict[ModelVersion, _RequestSums] = {}
        self._lock = threading.Lock()

    def counting(self, model: str, version: str, rows: int) -> _Tally:
        """Count the `with` block as one request of `rows` rows: a success, or a failure when it raises or is cancelled."""
        with self._lock:
            sums = self._sums.get((model, version)) or self._sums.setdefault((model, version), _RequestSums())
            return _Tally(sums, rows, self._lock)

    def of(self, model: str, version: str) -> ModelStatistics:
        """Return the sums of one version of a model."""
        with self._lock:
            sums = self._sums.get((model, version))
            return ModelStatistics() if sums is None else sums.snapshot()

    def forget(self, served: Container[ModelVersion]) -> None:
        """Drop the sums of versions that are not `served`, but for the MOST_GONE that were asked last and those that still answer."""
        with self._lock:
            gone = [version for version, sums in self._sums.items() if version not in served and not sums.pending]
            gone.sort(key=lambda version: self._sums[version].last_request_ms)
            for version in gone[: max(0, len(gone) - MOST_GONE)]:
                del self._sums[version]

    def totals(self) -> Mapping[ModelVersion, ModelStatistics]:
        """Return the sums of every version of a model that was asked for."""
        with self._lock:
            return {model: sums.snapshot() for model, sums in self._sums.items()}


class _Tally:
    """One request that is being counted: a context manager, told in between what ran for it."""

    __slots__ = ("_compute_s", "_lock", "_queue_s", "_rows", "_started_ns", "_sums")

    def __init__(self, sums: _RequestSums, rows: int, lock: threading.Lock) -> None:
        self._sums = sums
        self._rows = rows
        self._lock = lock
        self._started_ns = 0
        self._queue_s = self._compute_s = 0.0

    def took(self, rows: int) -> None:
        """Say how many rows it has, where that was not known when it began."""
        self._rows = rows

    def ran(self, runs: Iterable[SegmentRun]) -> None:
        """Add the time of `runs`, which were for this request, maybe among others."""
        for run in runs:
            self._queue_s += run.queue_seconds
            self._compute_s += run.seconds

    def __enter__(self) -> _Tally:
        with self._lock:
            self._sums.pending += 1
        self._started_ns = time.perf_counter_ns()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        elapsed_ns = time.perf_counter_ns() - self._started_ns
        with self._lock:
            self._sums.pending -= 1
            if error is None:
                self._sums.add_success(self._rows, elapsed_ns, self._queue_s, self._compute_s)
            else:
                self._sums.add_failure(failure_reason(error), elapsed_ns)


class _RequestSums:
    """What becomes a ModelStatistics; its owner holds the lock."""

    __slots__ = ("compute", "duration", "failure_ns", "last_request_ms", "pending", "queue", "reasons", "rows", "success_ns")

    def __init__(self) -> None:
        self.success_ns = self.failure_ns = self.rows = self.last_request_ms = self.pending = 0
        self.reasons: dict[str, int] = {}
        self.duration, self.queue, self.compute = DurationCounter(), DurationCounter(), DurationCounter()

    def add_success(self, rows: int, elapsed_ns: int, queue_s: float, compute_s: float) -> None:
        self.rows += rows
        self.success_ns += elapsed_ns
        self.last_request_ms = time.time_ns() // 1_000_000
        self.duration.add(elapsed_ns / 1e9)
        self.queue.add(queue_s)
        self.compute.add(compute_s)

    def add_failure(self, reason: str, elapsed_ns: int) -> None:
        self.failure_ns += elapsed_ns
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def snapshot(self) -> ModelStatistics:
        duration = self.duration.snapshot()
        return ModelStatistics(
            successes=duration.count,
            failures=sum(self.reasons.values()),
            success_ns=self.success_ns,
            failure_ns=self.failure_ns,
            rows=self.rows,
            last_request_ms=self.last_request_ms,
            pending=self.pending,
            failures_by_reason=dict(self.reasons),
            duration=duration,
            queue=self.queue.snapshot(),
            compute=self.compute.snapshot(),
        )
