"""Counts requests per model, as the v2 protocol's statistics want them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ModelStatistics:
    """Requests of one model since the server started. `last_request_ms`: milliseconds since 1970; 0: never."""

    successes: int = 0
    failures: int = 0
    success_ns: int = 0
    failure_ns: int = 0
    rows: int = 0
    last_request_ms: int = 0


class RequestCounter:
    """Sums up requests by model. Used from the event loop's thread only."""

    def __init__(self) -> None:
        self._totals: dict[str, ModelStatistics] = {}

    @contextmanager
    def counting(self, model: str, rows: int) -> Iterator[None]:
        """Count the block as one request of `rows` rows: a success, or a failure when it raises or is cancelled."""
        started_ns = time.perf_counter_ns()
        try:
            yield
        except BaseException:
            old = self.of(model)
            failure_ns = old.failure_ns + time.perf_counter_ns() - started_ns
            self._totals[model] = replace(old, failures=old.failures + 1, failure_ns=failure_ns)
            raise
        self._add_success(model, rows, time.perf_counter_ns() - started_ns)

    def of(self, model: str) -> ModelStatistics:
        """Return the sums of one model."""
        return self._totals.get(model, ModelStatistics())

    def totals(self) -> Mapping[str, ModelStatistics]:
        """Return the sums of every model that was asked for."""
        return dict(self._totals)

    def _add_success(self, model: str, rows: int, elapsed_ns: int) -> None:
        old = self.of(model)
        self._totals[model] = replace(
            old,
            successes=old.successes + 1,
            success_ns=old.success_ns + elapsed_ns,
            rows=old.rows + rows,
            last_request_ms=time.time_ns() // 1_000_000,
        )
