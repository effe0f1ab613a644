"""The comparison that the demo makes, on tiny networks: what runs, not how fast it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.timing import Timing
from benchmarks.latency.compare import LatencyComparison, compare_latency
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE
from benchmarks.models.tiny import write_tiny_forks


@pytest.mark.parametrize(("threads", "ways"), [(1, {SEPARATE}), (2, {SEPARATE, SIDE_BY_SIDE})])
def test_separate_networks_run_in_both_ways_where_two_can_run_at_a_time(tmp_path: Path, threads: int, ways: set[str]) -> None:
    repository, networks = write_tiny_forks(tmp_path, 2)
    spec = repository.tasks[next(iter(networks))].inputs[0]
    found = compare_latency(repository, networks, np.zeros((1, *spec.shape), np.uint8), threads=threads, rounds=3)
    assert set(found.ways) == ways
    assert {timing.runs for timing in (found.shared, *found.ways.values())} == {3}


def test_the_speedup_is_over_separate_networks_as_they_are_fastest() -> None:
    times = {SEPARATE: Timing(30.0, 29.0, 31.0, 9), SIDE_BY_SIDE: Timing(24.0, 20.0, 40.0, 9)}
    found = LatencyComparison(Timing(12.0, 11.0, 13.0, 9), times)
    assert (found.way, found.separate.median_ms, found.speedup) == (SIDE_BY_SIDE, 24.0, 2.0)
    found = LatencyComparison(found.shared, {**times, SEPARATE: Timing(18.0, 17.0, 50.0, 9)})
    assert (found.way, found.speedup) == (SEPARATE, 1.5)
