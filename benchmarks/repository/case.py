"""What one request took, and what follows from that."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.models.compared import Compared
from benchmarks.models.separate import SEPARATE
from benchmarks.repository.choice import Asked
from benchmarks.repository.measure import Times


@dataclass(frozen=True, kw_only=True)
class Case(Compared[Times]):
    """possible: the MACs of the separate networks over those of the shared request; None: nothing in it is counted.

    memory, disk: bytes that its tasks take, shared and separate; None: not measured.
    """

    asked: Asked
    possible: float | None
    memory: tuple[int, int] | None = None
    disk: tuple[int, int] | None = None

    @property
    def share(self) -> float | None:
        """Return the share of the possible that is reached."""
        return None if self.possible is None else self.speedup / self.possible

    @property
    def share_one_after_another(self) -> float | None:
        """Return the same over separate networks one after another, even where they are faster side by side."""
        return None if self.possible is None else self.over(SEPARATE) / self.possible
