"""What a set of segments costs to run, in seconds: the model by which cuts are judged.

One request for every network, one row: each segment runs once, on all of its streams. A run costs a fixed time, the reading of its
weights, and for each stream its arithmetic and the bytes that enter and leave. The constants were measured on a CPU by
`python -m benchmarks.studies.cut_costs` (docs/measurements/gains.md); only their ratios decide, and they decide little: most cuts win or
lose by far.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum

from exporter.graph.chain import Tap
from exporter.sharing.occurrence import Occurrence


@dataclass(frozen=True)
class CutCosts:
    """seconds_per_run: of a segment beyond its arithmetic. bytes_per_second: read or written at a cut, and read of weights."""

    seconds_per_run: float = 40e-6
    bytes_per_second: float = 8e9
    macs_per_second: float = 40e9

    def total(self, models: Iterable[tuple[Occurrence, int]]) -> float:
        """Return the seconds of one request for all networks, given as their segments in any order, each with the number of its streams."""
        return fsum(self.of_segment(segment, streams) for segment, streams in models)

    def at_cut(self, taps: Iterable[Tap]) -> float:
        """Return the seconds that one more cut costs: another run, and what crosses is written and read."""
        return self.seconds_per_run + 2 * sum(tap.row_bytes for tap in taps) / self.bytes_per_second

    def most_saved(self, segment: Occurrence, copies: int, beside: int, streams: tuple[int, int], readers: int) -> float:
        """Return the most seconds that `copies` copies of `segment` instead of one can save.

        beside: how many segments give it something or take something of it. At best every copy joins those of its way, so that of all these
        no more than the copies stay, and nothing crosses. streams: of the segment before, and of its copies. readers: how often its
        results are taken.
        """
        entering, leaving = (sum(tap.row_bytes for tap in taps) for taps in (segment.taken, segment.given))
        crossing = streams[0] * (2 * entering + leaving) + readers * leaving
        saved = max(beside + 1 - copies, 0) * self.seconds_per_run + crossing / self.bytes_per_second
        more = (streams[1] - streams[0]) * segment.macs / self.macs_per_second
        return saved - more - (copies - 1) * segment.weight_bytes / self.bytes_per_second

    def of_segment(self, segment: Occurrence, streams: int) -> float:
        """Return the seconds of one run of `segment` on its `streams`."""
        per_stream = segment.macs / self.macs_per_second + _crossing(segment) / self.bytes_per_second
        return self.seconds_per_run + segment.weight_bytes / self.bytes_per_second + streams * per_stream


def _crossing(segment: Occurrence) -> int:
    return sum(tap.row_bytes for tap in (*segment.taken, *segment.given))
