"""Which tasks the demo tunes, where, and why there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class DemoTask:
    """A task on the digits and where in the network it is tuned.

    data: a name in `tuning.data.digits`. depth: where the tuned block lies, as a share of the blocks; None for a linear probe.
    """

    name: str
    data: str
    what: str
    depth: float | None

    def subset(self, blocks: Sequence[str]) -> tuple[str, ...]:
        """Return the block to tune in a network with `blocks`."""
        return () if self.depth is None else (blocks[min(round(self.depth * len(blocks)), len(blocks) - 1)],)


TASKS = (
    DemoTask("parity", "parity", "other labels: even or odd", None),
    DemoTask("size-class", "size-class", "other labels: below 5", None),
    DemoTask("angle", "angle", "other labels: which way up", 6 / 8),
    DemoTask("rotated", "rotated", "input shift: lying digits", 4 / 8),
    DemoTask("inverted", "inverted", "input shift: dark on light", 2 / 8),
)
