"""The benchmark of what the server adds, at a size that says nothing of speed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.overhead import measure
from benchmarks.tiny import write_tiny_family


@pytest.mark.slow
def test_all_three_ways_are_measured(tmp_path: Path) -> None:
    repository = write_tiny_family(tmp_path / "repository")
    found = measure(repository.path, "probe", threads=1, rounds=2, seconds=0.2, clients=2)
    assert found.bare.runs == found.http.runs == found.grpc.runs == 2
    assert min(found.bare.median_ms, found.http.median_ms, found.grpc.median_ms) > 0
    assert found.http_per_s > 0 < found.grpc_per_s
