"""What a set of segments costs to run, in seconds: the model by which cuts are judged.

One request for every network, one row: each segment runs once, on all of its streams. A run costs a fixed time, the reading of its
weights, and for each stream its arithmetic and the bytes that enter and leave. The constants were measured on a CPU by
`python -m benchmarks.studies.cut_costs` (docs/measurements.md); only their ratios decide, and they decide little: most cuts win or lose
by far.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.graph.chain import Tap
from exporter.sharing.segments import BlockRun, Key, Occurrence


@dataclass(frozen=True)
class CutCosts:
    """seconds_per_run: of a segment beyond its arithmetic. bytes_per_second: read or written at a cut, and read of weights."""

    seconds_per_run: float = 40e-6
    bytes_per_second: float = 8e9
    macs_per_second: float = 40e9

    def total(self, networks: Iterable[Iterable[Occurrence]]) -> float:
        """Return the seconds of one request for all `networks`, given as their segments."""
        streams: dict[Key, dict[tuple[str, ...], BlockRun]] = {}
        for occurrences in networks:
            for occurrence in occurrences:
                streams.setdefault(occurrence.key, {})[occurrence.inputs] = occurrence.blocks
        return sum(self._segment(next(iter(inputs.values())), len(inputs)) for inputs in streams.values())

    def at_cut(self, taps: Iterable[Tap]) -> float:
        """Return the seconds that one more cut costs: another run, and what crosses is written and read."""
        return self.seconds_per_run + 2 * sum(tap.row_bytes for tap in taps) / self.bytes_per_second

    def most_saved(self, run: BlockRun, copies: int, networks: int, streams: int) -> float:
        """Return the most seconds that `copies` copies of `run` instead of one can save, if `streams` streams more are then computed.

        At best every copy joins its neighbours on both sides in each of the `networks` that have it.
        """
        crossing = 2 * sum(tap.row_bytes for tap in (*run[0].inputs, *run[-1].outputs)) / self.bytes_per_second
        saved = (2 * copies + 1) * self.seconds_per_run + networks * crossing
        macs, weight_bytes = sum(block.macs for block in run), sum(block.weight_bytes for block in run)
        return saved - streams * macs / self.macs_per_second - (copies - 1) * weight_bytes / self.bytes_per_second

    def _segment(self, run: BlockRun, streams: int) -> float:
        crossing = sum(tap.row_bytes for tap in (*run[0].inputs, *run[-1].outputs))
        per_stream = sum(block.macs for block in run) / self.macs_per_second + crossing / self.bytes_per_second
        return self.seconds_per_run + sum(block.weight_bytes for block in run) / self.bytes_per_second + streams * per_stream
