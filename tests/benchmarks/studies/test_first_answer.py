"""The time from a deploy to the first answer: every way is measured, and what is new is really new."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.models.tiny import write_tiny_family
from benchmarks.studies.first_answer import WAYS, main, make_new
from contract.repository import read_repository

pytestmark = pytest.mark.slow


def test_first_answers_are_measured_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = write_tiny_family(tmp_path / "repository")
    before = {file: file.stat().st_mtime_ns for file in repository.path.rglob("*") if file.is_file()}
    plots = [tmp_path / "first.png", tmp_path / "first.svg"]
    options = ["--task", "late", "--rounds", "1", "--threads", "1", "--json", str(tmp_path / "first.json")]
    monkeypatch.setattr(sys, "argv", ["first_answer", str(repository.path), *options, *(f"--plot={plot}" for plot in plots)])
    main()
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[1:]] == list(WAYS)
    assert plots[0].read_bytes().startswith(b"\x89PNG")
    assert all(way in plots[1].read_text() for way in WAYS)
    assert before == {file: file.stat().st_mtime_ns for file in repository.path.rglob("*") if file.is_file()}  # a copy is changed


def test_what_is_made_new_is_in_no_cache_and_says_the_same(tmp_path: Path) -> None:
    repository = write_tiny_family(tmp_path / "repository")
    entry = tmp_path / "cache/espalier/segments/key"
    entry.mkdir(parents=True)
    before = {file: (file.stat().st_ctime_ns, file.read_bytes()) for file in repository.path.rglob("*") if file.is_file()}
    make_new(repository, "late", tmp_path / "cache")
    assert not entry.exists()
    own = [name for name in repository.segments if name.startswith("late")]
    changed = {file.relative_to(repository.path).as_posix() for file, was in before.items() if file.stat().st_ctime_ns != was[0]}
    assert changed == {f"{name}/{part}" for name in own for part in ("config.pbtxt", "1/model.onnx")} | {"late/config.pbtxt"}
    assert read_repository(repository.path).tasks == repository.tasks
