"""One case of the latency benchmark: what its variants took, and what follows from that."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.latency.variants import Times
from benchmarks.models.compared import Compared
from benchmarks.models.separate import SEPARATE


@dataclass(frozen=True, kw_only=True)
class LatencyCase(Compared[Times]):
    """A network, a fork and a number of tasks, whose variants took turns. predicted: the speed-up by MACs, which is what is possible."""

    network: str
    fork: str
    tasks: int
    predicted: float

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
        return self.over(SEPARATE) / self.predicted
