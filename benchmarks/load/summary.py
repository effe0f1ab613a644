"""What a load comes down to: percentiles, throughput, and the knee. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil


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


def knee(points: Sequence[Point], unloaded_p99_ms: float, rule: KneeRule) -> float:
    """Return the largest rate offered (a second) at which the server keeps up, as it does at all smaller ones; 0: at none."""
    found = 0.0
    for point in sorted(points, key=lambda point: point.offered_per_s):
        if not rule.keeps_up(point, unloaded_p99_ms):
            break
        found = point.offered_per_s
    return found
