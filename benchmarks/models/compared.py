"""One request for several tasks, shared and as separate networks, and what follows from how long each took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Generic, Protocol, TypeVar

from benchmarks.harness.noise import Measurement
from benchmarks.harness.timing import Timing, summarise
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE, fastest

SHARED = "shared"


class Seconds(Protocol):
    """What took turns: the seconds of each round, by variant."""

    @property
    def seconds(self) -> Mapping[str, Sequence[float]]:
        """Return them."""


TimesT = TypeVar("TimesT", bound=Seconds)


@dataclass(frozen=True)
class Compared(Generic[TimesT]):
    """Variants that took turns: "shared", and separate networks one after another, or side by side."""

    times: Measurement[TimesT]

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
        """Return the median of the separate networks, as they were faster, over that of the shared request."""
        return self.over(self.baseline)

    def over(self, variant: str) -> float:
        """Return the median of `variant` over that of the shared request."""
        seconds = self.times.value.seconds
        return median(seconds[variant]) / median(seconds[SHARED])
