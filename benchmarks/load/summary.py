"""What a load comes down to: percentiles, throughput, and the knee. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

from benchmarks.harness.closed_loop import Span


@dataclass(frozen=True)
class Percentiles:
    """Latencies in milliseconds: that so many percent of the requests do not exceed."""

    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Point:
    """One load and what came of it. offered_per_s: that arrived, 0 in a closed loop. answered: of `sent`; the others were refused or lost.

    per_s: answers a second. latency: of the answers, None without any.
    """

    clients: int
    offered_per_s: float
    sent: int
    answered: int
    per_s: float
    latency: Percentiles | None


@dataclass(frozen=True)
class KneeRule:
    """When a server keeps up: p99 at most `slowdown` times the unloaded one, answers at least `answered` of what was offered."""

    slowdown: float = 5.0
    answered: float = 0.97

    def keeps_up(self, point: Point, unloaded_p99_ms: float) -> bool:
        """Whether it does at this point."""
        return (
            point.latency is not None
            and point.latency.p99_ms <= self.slowdown * unloaded_p99_ms
            and point.per_s >= self.answered * point.offered_per_s
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest of `values` that `percent` percent of them do not exceed (nearest rank). Raises ValueError without values."""
    if not values or not 0 <= percent <= 100:
        raise ValueError(f"A percentile needs values and a percentage from 0 to 100, not {len(values)} values and {percent}.")
    return sorted(values)[max(ceil(percent / 100 * len(values)), 1) - 1]


def percentiles(latencies_ms: Sequence[float]) -> Percentiles | None:
    """Return the percentiles of `latencies_ms`, None without any."""
    return Percentiles(*(percentile(latencies_ms, percent) for percent in (50, 90, 95, 99))) if latencies_ms else None


def open_rate(spans: Sequence[Span], seconds: float) -> float:
    """Return the answers a second to requests that were due (Span.sent_s) from 0 to `seconds`.

    Latency alone is not falling behind, but latency that grows is: the answers then take longer to come than the requests, by as much
    as it has grown. That is read from the medians of the two halves, since single requests, like the first and the last, wait by chance.
    """
    halves: tuple[list[float], list[float]] = [], []
    for span in spans:
        halves[span.sent_s >= seconds / 2].append(span.seconds)
    early, late = halves
    growth = 2 * (median(late) - median(early)) if early and late else 0.0
    return len(spans) / (seconds + max(0.0, growth))


def knee(points: Sequence[Point], unloaded_p99_ms: float, rule: KneeRule) -> float:
    """Return the largest rate offered (a second) at which the server keeps up, as it does at all smaller ones; 0: at none."""
    found = 0.0
    for point in sorted(points, key=lambda point: point.offered_per_s):
        if not rule.keeps_up(point, unloaded_p99_ms):
            break
        found = point.offered_per_s
    return found
