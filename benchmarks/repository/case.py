"""What one request took, and what follows from that."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.harness.noise import Measurement
from benchmarks.harness.timing import Timing, summarise
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE, fastest
from benchmarks.repository.choice import Asked
from benchmarks.repository.measure import SHARED, Times


@dataclass(frozen=True)
class Case:
    """possible: the MACs of the separate networks over those of the shared request; None: nothing in it is counted.

    memory, disk: bytes that its tasks take, shared and separate; None: not measured.
    """

    asked: Asked
    possible: float | None
    times: Measurement[Times]
    memory: tuple[int, int] | None = None
    disk: tuple[int, int] | None = None

    def timing(self, variant: str) -> Timing | None:
        """Return the variant's time; None if it was not measured."""
        seconds = self.times.value.seconds.get(variant)
        return summarise(seconds) if seconds else None

    @property
    def baseline(self) -> str:
        """Return how separate networks were faster."""
        return fastest(self.times.value.seconds, (SEPARATE, SIDE_BY_SIDE))

    @property
    def speedup(self) -> float:
        """Return the median of the separate networks, as they were faster, over that of the shared request."""
        return self._over(self.baseline)

    @property
    def share(self) -> float | None:
        """Return the share of the possible that is reached."""
        return None if self.possible is None else self.speedup / self.possible

    @property
    def share_one_after_another(self) -> float | None:
        """Return the same over separate networks one after another, even where they are faster side by side."""
        return None if self.possible is None else self._over(SEPARATE) / self.possible

    def _over(self, variant: str) -> float:
        seconds = self.times.value.seconds
        return median(seconds[variant]) / median(seconds[SHARED])
