"""How segments are best run is found out once: a later start knows it, where everything is the same, and nowhere else."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.repository import Repository, read_repository
from contract.repository.record import ParityRecord
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.runtime import OnnxRuntime
from serving.engines.openvino.runtime import OpenVinoRuntime
from serving.engines.openvino.sample_walk import Way, _Walk
from serving.engines.openvino.verdicts import Verdict, Verdicts
from serving.engines.sessions.runtime import SegmentFile
from tests.serving.engines.openvino.large import OPENVINO, write_large, write_segment
from tests.serving.engines.openvino.test_runtime import with_distances
from tests.serving.nets import LAYERS

pytestmark = pytest.mark.slow
FOUND = Verdict({"mid": Way.elsewhere, "trunk": Way.fp32}, {"mid": "Segment 'mid' runs on ONNX Runtime: it differs."})


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_large(tmp_path_factory.mktemp("large") / "repo")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache/openvino.jsonl"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The segments that are tried with samples from now on, of which "mid" differs in fp32."""
    found: list[str] = []
    trial = OpenVinoRuntime.trial

    def note(self: OpenVinoRuntime[Any], file: SegmentFile, way: Way) -> object:
        found.append(file.segment.name)
        return trial(self, file, way)

    def fault(self: _Walk, step: Any, right: object, found: object, allowed: float) -> str:
        return "differs" if step.segment == "mid" and self._ways.of["mid"] is Way.fp32 else ""

    monkeypatch.setattr(OpenVinoRuntime, "trial", note)
    monkeypatch.setattr(_Walk, "_fault", fault)
    return found


def prepared(repository: Repository, file: Path | None) -> OpenVinoRuntime[Any]:
    made = OpenVinoRuntime(replace(OPENVINO, ways_file=file), OnnxRuntime(OPENVINO))
    made.prepare(repository, [SegmentFile(segment, repository.model_file(name)) for name, segment in repository.segments.items()])
    return made


def test_a_second_start_runs_no_sample_and_says_the_same(
    large: Repository, file: Path, tried: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    first = prepared(large, file)
    assert set(tried) == set(large.segments)
    assert first._ways["mid"] is Way.elsewhere
    tried.clear()
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            second = prepared(large, file)
        assert not tried
        assert second._ways == first._ways
        assert "Segment 'mid' runs on ONNX Runtime: on OpenVINO in fp32 its answer to the sample differs." in caplog.text
        assert "is known from an earlier start" in caplog.text


def test_the_engine_keeps_it_beside_what_has_run_here(large: Repository, file: Path, tried: list[str]) -> None:
    engine = EmbeddedEngine(large, options=EngineOptions(OPENVINO, checked_file=file.with_name("checked.txt")))
    engine._open(large, make_room=True)
    assert file.exists()
    engine._store.close_all()


@pytest.mark.parametrize("change", ["record", "digest", "precision of a segment", "library", "processor", "precision", "no file"])
def test_whatever_is_another_is_tried(
    large: Repository, file: Path, tried: list[str], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(large, file)
    tried.clear()
    repository, segments, tasks = large, dict(large.segments), dict(large.tasks)
    if change == "record":
        parity = tasks["probe"].parity
        assert isinstance(parity, ParityRecord)
        tasks["probe"] = replace(tasks["probe"], parity=replace(parity, tolerance=0.03))
    elif change == "digest":
        segments["mid"] = replace(segments["mid"], digest="0" * 64)
    elif change == "precision of a segment":
        segments["mid"] = replace(segments["mid"], precision="int8")
    elif change == "library":
        monkeypatch.setattr(OnnxRuntime, "name", "onnxruntime 99")
    elif change == "processor":
        monkeypatch.setattr("serving.engines.openvino.verdicts.processor", lambda: "another")
    elif change == "precision":
        monkeypatch.setattr(OpenVinoRuntime, "name", "openvino in another precision")
    prepared(replace(repository, segments=segments, tasks=tasks), None if change == "no file" else file)
    assert "mid" in tried


def test_what_openvino_refuses_is_asked_of_it_again(tmp_path: Path, file: Path, tried: list[str]) -> None:
    """It may have been for want of memory."""
    path = tmp_path / "repo"
    write_large(path)
    write_segment(path, "mid", with_distances(LAYERS["mid"].model()))
    prepared(read_repository(path), file)
    tried.clear()
    prepared(read_repository(path), file)
    assert "mid" in tried


LINE = {"key": "k", "ways": {"mid": "elsewhere", "trunk": "fp32"}, "said": dict(FOUND.said)}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"no JSON, k",
        json.dumps(LINE).encode()[:-20],
        b'["k"]',
        b'{"key": "k"}',
        json.dumps({**LINE, "ways": {"mid": "elsewhere"}}).encode(),
        json.dumps({**LINE, "ways": {"mid": "sideways", "trunk": "fp32"}}).encode(),
        json.dumps({**LINE, "ways": ["mid"]}).encode(),
        json.dumps({**LINE, "key": "another, not k"}).encode(),
    ],
)
def test_what_is_damaged_is_passed_over(file: Path, line: bytes) -> None:
    verdicts = Verdicts(file, ["facts"])
    file.parent.mkdir(mode=0o700)
    file.write_bytes(line + b"\n")
    assert verdicts.find("k", FOUND.ways) is None
    verdicts.keep("k", FOUND)
    assert verdicts.find("k", FOUND.ways) == FOUND
    assert verdicts.find("", FOUND.ways) is None


def test_nothing_is_believed_that_others_could_have_written(file: Path) -> None:
    verdicts = Verdicts(file, ["facts"])
    verdicts.keep("k", FOUND)
    file.parent.chmod(0o777)
    assert verdicts.find("k", FOUND.ways) is None
