"""The study of engines, on networks that are too small to say anything."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.studies.engines import ENGINES, compare, report
from tests.serving.engines.openvino.large import write_large
from tests.serving.nets import images

pytestmark = pytest.mark.slow


def test_each_engine_is_timed_and_its_answers_are_compared(tmp_path: Path) -> None:
    repository = write_large(tmp_path / "repo")
    took = asyncio.run(compare(repository, ["probe", "late"], images(1), rounds=1, threads=1))
    assert list(took) == list(ENGINES)
    assert took["ONNX Runtime fp32"].error == 0
    assert took["OpenVINO fp32"].error < 1e-4 < took["OpenVINO bf16"].error < 0.2
    lines = report("tiny", "trunk", 2, took).splitlines()
    assert lines[0] == "tiny, 2 tasks at trunk"
    assert "(1.00x)" in lines[1]
    assert len(lines) == 4
