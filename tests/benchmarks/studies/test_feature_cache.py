"""The measurement of a feature cache, at a tiny size."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.studies.feature_cache import NothingShared, measure
from contract.repository import Repository


def test_each_way_is_measured_and_the_bound_said(repository: Repository, tmp_path: Path) -> None:
    found = asyncio.run(measure(repository, "colour", "late", 2, 1, tmp_path))
    assert found.bytes == 8 * 8 * 3
    assert [*found.elapsed_ms] == [*found.processor_ms] == ["hash", "B's branch", "A without", "A with, new input", "B after A"]
    assert all(value > 0 for value in found.elapsed_ms.values())
    assert found.bound > 1
    assert str(found).startswith("bound: 192 bytes hashed at ")


def test_tasks_that_share_nothing_are_refused(repository: Repository, tmp_path: Path) -> None:
    alone = replace(repository, tasks={"late": repository.tasks["late"]})
    with pytest.raises(NothingShared, match="share no features"):
        asyncio.run(measure(alone, "late", "late", 1, 1, tmp_path))
