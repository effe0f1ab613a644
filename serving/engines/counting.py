"""Counts what ran, per segment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

from serving.engines.base import SegmentRun, SegmentStatistics


class RunCounter:
    """Sums up runs by segment; safe to use from several threads."""

    def __init__(self, segments: Iterable[str]) -> None:
        self._totals = dict.fromkeys(segments, SegmentStatistics())
        self._lock = threading.Lock()

    def add(self, run: SegmentRun) -> None:
        """Count `run`, which has just ended."""
        now_ms = time.time_ns() // 1_000_000
        with self._lock:
            old = self._totals.get(run.segment, SegmentStatistics())
            self._totals[run.segment] = SegmentStatistics(
                old.runs + 1, old.rows + run.rows, old.seconds + run.seconds, last_run_ms=now_ms
            )

    def totals(self) -> Mapping[str, SegmentStatistics]:
        """Return the sums of this moment."""
        with self._lock:
            return dict(self._totals)
