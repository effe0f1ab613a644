"""One case of the latency benchmark: what its variants took, and what follows from that."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.harness.noise import Measurement
from benchmarks.harness.timing import Timing, summarise
from benchmarks.latency.variants import Times
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE, fastest


@dataclass(frozen=True)
class LatencyCase:
    """A network, a fork and a number of tasks, whose variants took turns. predicted: the speed-up by MACs, which is what is possible."""

    network: str
    fork: str
    tasks: int
    predicted: float
    times: Measurement[Times]

    def timing(self, variant: str) -> Timing | None:
        """Return the variant's time; None if it was not measured."""
        seconds = self.times.value.seconds.get(variant)
        return summarise(seconds) if seconds else None

    @property
    def baseline(self) -> str:
        """Return how separate networks were faster: one after another, or side by side where that was measured."""
        return fastest(self.times.value.seconds, (SEPARATE, SIDE_BY_SIDE))

    @property
    def speedup(self) -> float:
        """Return the median of the separate networks, as they were faster, over that of the shared trunk."""
        return median(self.times.value.seconds[self.baseline]) / median(self.times.value.seconds["shared"])

    @property
    def one_by_one(self) -> float:
        """Return the speed-up if the branches ran one by one, each for as long as in a request for one task, and nothing else took time.

        No bound: branches that run side by side may beat it.
        """
        parts_s = self.times.value.trunk_s + self.tasks * self.times.value.branch_s
        return median(self.times.value.seconds[self.baseline]) / parts_s

    @property
    def share(self) -> float:
        """Return the share of the possible."""
        return self.speedup / self.predicted

    @property
    def share_one_after_another(self) -> float:
        """Return the share of the possible over separate networks one after another, even where they are faster side by side."""
        seconds = self.times.value.seconds
        return median(seconds[SEPARATE]) / median(seconds["shared"]) / self.predicted
