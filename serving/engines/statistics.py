"""Statistics of what ran, per segment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from contract.histogram import DurationCounter
from serving.engines.base import BatchStatistics, RequestSeconds, SegmentRun, SegmentStatistics

Shares = tuple[tuple[str, float], ...]  # segments that ran together, and the share that each has of the seconds
_MOST_TOGETHER = 256


class RunStatistics:
    """Adds up runs by segment; safe to use from several threads."""

    def __init__(self, segments: Iterable[str]) -> None:
        self._counters = {segment: _Counters() for segment in segments}
        self._together: dict[Shares, dict[float, _Counters]] = {}  # by share: what is not yet in the counters of segments
        self._lock = threading.Lock()

    def add(self, run: SegmentRun, waits_s: Sequence[float] | None = None) -> None:
        """Count `run`, which has just ended. waits_s: how long each request in it waited; None: it was one request's, as `run` says."""
        now_ms = time.time_ns() // 1_000_000
        with self._lock:
            counters = self._counters.get(run.segment) or self._counters.setdefault(run.segment, _Counters())
            counters.add(run, (run.queue_seconds,) if waits_s is None else waits_s, now_ms)

    def add_together(self, shares: Shares, run: SegmentRun, waits_s: Sequence[float]) -> None:
        """Count `run`, of all segments of `shares` at once: once for each share, since what they have done is only added up when asked."""
        now_ms = time.time_ns() // 1_000_000
        with self._lock:
            if shares not in self._together:
                if len(self._together) >= _MOST_TOGETHER:
                    self._share_out()
                self._together[shares] = {share: _Counters() for _, share in shares}
            for share, counters in self._together[shares].items():
                counters.add(run._replace(seconds=run.seconds * share), waits_s, now_ms)

    def _share_out(self) -> None:
        together, self._together = self._together, {}
        for shares, counters in together.items():
            for segment, share in shares:
                self._counters.setdefault(segment, _Counters()).add_all(counters[share])

    def drop(self, segments: Iterable[str]) -> None:
        """Forget what these have done."""
        with self._lock:
            self._share_out()
            for segment in segments:
                self._counters.pop(segment, None)

    def totals(self) -> Mapping[str, SegmentStatistics]:
        """Return the statistics of this moment."""
        with self._lock:
            self._share_out()
            return {segment: counters.snapshot() for segment, counters in self._counters.items()}


class _Counters:
    """What becomes a SegmentStatistics; its owner holds the lock."""

    __slots__ = ("batches", "compute", "infer_s", "last_run_ms", "queue")

    def __init__(self) -> None:
        self.compute, self.queue = DurationCounter(), DurationCounter()
        self.batches: dict[int, list[float]] = {}  # rows -> runs, seconds
        self.infer_s = 0.0
        self.last_run_ms = 0

    def add(self, run: SegmentRun, waits_s: Sequence[float], now_ms: int) -> None:
        self.compute.add(run.seconds)
        for wait_s in waits_s:
            self.queue.add(wait_s)
        self.infer_s += len(waits_s) * run.seconds
        batch = self.batches.get(run.rows) or self.batches.setdefault(run.rows, [0, 0.0])
        batch[0] += 1
        batch[1] += run.seconds
        self.last_run_ms = now_ms

    def add_all(self, other: _Counters) -> None:
        self.compute.add_all(other.compute)
        self.queue.add_all(other.queue)
        self.infer_s += other.infer_s
        for rows, (runs, seconds) in other.batches.items():
            batch = self.batches.setdefault(rows, [0, 0.0])
            batch[0] += runs
            batch[1] += seconds
        self.last_run_ms = max(self.last_run_ms, other.last_run_ms)

    def snapshot(self) -> SegmentStatistics:
        batches = {rows: BatchStatistics(int(runs), seconds) for rows, (runs, seconds) in sorted(self.batches.items())}
        compute, queue = self.compute.snapshot(), self.queue.snapshot()
        return SegmentStatistics(
            runs=compute.count,
            rows=sum(rows * batch.runs for rows, batch in batches.items()),
            seconds=compute.total,
            last_run_ms=self.last_run_ms,
            compute=compute,
            queue=queue,
            requests=RequestSeconds(total=queue.total + self.infer_s, infer=self.infer_s),
            batches=batches,
        )
