"""Histograms that cost a microsecond to feed."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

# Upper bounds of the buckets, in seconds; a last bucket without a bound takes the rest.
DURATION_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(frozen=True)
class Histogram:
    """Durations as counted so far. `counts`: how many fell into each bucket of DURATION_BOUNDS_S, and above all of them."""

    counts: tuple[int, ...] = (0,) * (len(DURATION_BOUNDS_S) + 1)
    total: float = 0.0

    @property
    def count(self) -> int:
        """Return how many durations there were."""
        return sum(self.counts)

    def quantile(self, share: float) -> float | None:
        """Return the seconds within which a `share` of them were, 0 to 1, as Prometheus' histogram_quantile does; None: there were none.

        Within a bucket they are taken to lie evenly; where it is the last one, its lower bound is returned.
        """
        wanted, below, lower = share * self.count, 0, 0.0
        for count, upper in zip(self.counts, DURATION_BOUNDS_S, strict=False):
            if count and below + count >= wanted:
                return lower + (upper - lower) * (wanted - below) / count
            below, lower = below + count, upper
        return lower if self.count else None


EMPTY = Histogram()


class DurationCounter:
    """Sorts durations into buckets. Not safe to use from several threads: its owner has a lock."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts = [0] * (len(DURATION_BOUNDS_S) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration; one that equals a bound belongs below it."""
        self._counts[bisect_left(DURATION_BOUNDS_S, seconds)] += 1
        self.total += seconds

    def add_all(self, other: DurationCounter) -> None:
        """Count what `other` has counted."""
        self._counts = [own + its for own, its in zip(self._counts, other._counts, strict=True)]
        self.total += other.total

    def snapshot(self) -> Histogram:
        """Return the counts of this moment."""
        return Histogram(tuple(self._counts), self.total)
