"""The measurement of many heads behind one trunk, at a tiny size."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.studies.heads_together import measure
from tests.serving.heads import Head, write_heads


def test_both_ways_are_measured_for_each_number_of_heads(tmp_path: Path) -> None:
    repository = write_heads(tmp_path / "repository", [Head(f"h{number}") for number in range(6)])
    found = asyncio.run(measure(repository, [2, 6], 2, 1, tmp_path / "cache"))
    assert [(one.way, one.asked) for one in found] == [(way, asked) for asked in (2, 6) for way in ("one by one", "in bundles")]
    assert all(one.trunk_ms > 0 and one.request_ms > 0 and one.over_trunk == one.request_ms / one.trunk_ms for one in found)
    assert all("of the trunk's" in str(one) for one in found)
