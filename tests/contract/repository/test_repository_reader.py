"""A repository that is read again and again: nothing is parsed twice, and nothing that has changed is missed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import contract.repository.parsed_configs
from contract.errors import RepositoryError
from contract.repository import ALL_TASKS, read_repository
from contract.repository.config import parse_text
from contract.repository.read import RepositoryReader
from contract.repository.write import changed, write_all_tasks
from tests.contract.repository.test_repository import CANARY, PREVIOUS, edit, keep
from tests.serving.nets import write_repository


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    write_repository(tmp_path / "repo")
    return tmp_path / "repo"


def test_only_what_has_changed_is_parsed_again(repo: Path) -> None:
    reader = RepositoryReader(repo)
    first = reader.read()
    edit(repo / "parity/config.pbtxt", "max_batch_size: 6\n", "max_batch_size: 5\n")
    (repo / "probe/labels.txt").write_text("a\nb\nc\n")
    (repo / "mid/7").mkdir()
    (repo / "mid/7/model.onnx").write_bytes((repo / "mid/1/model.onnx").read_bytes())
    shutil.rmtree(repo / "late")
    second = reader.read()
    assert second == read_repository(repo)
    assert (second.tasks["parity"].max_batch_rows, second.segments["mid"].version) == (5, "7")
    assert second.tasks["probe"].labels == ("a", "b", "c")
    kept = {name for name in second.tasks if second.tasks[name] is first.tasks[name]}
    kept |= {name for name in second.segments if second.segments[name] is first.segments[name]}
    assert kept == {*second.tasks, *second.segments} - {"parity", "probe", "mid"}


def test_versions_kept_beside_a_task_are_read_again_when_they_change(repo: Path) -> None:
    reader = RepositoryReader(repo)
    assert reader.read().tasks["probe"].canary is None
    keep(repo, "canary", CANARY)
    assert reader.read().tasks["probe"].canary == CANARY
    keep(repo, "previous", PREVIOUS)
    assert reader.read().tasks["probe"].previous == PREVIOUS
    (repo / "probe/canary/labels.txt").write_text("k\nl\nm\n")
    found = reader.read().tasks["probe"].canary
    assert found is not None
    assert found.task.labels == ("k", "l", "m")
    for kept in ("canary", "previous"):
        shutil.rmtree(repo / "probe" / kept)
    assert reader.read() == read_repository(repo)


def test_a_reader_says_what_is_wrong_with_what_was_right(repo: Path) -> None:
    reader = RepositoryReader(repo)
    good = reader.read()
    config = (repo / "mid/config.pbtxt").read_text()
    edit(repo / "mid/config.pbtxt", '"digest"', '"dig"')
    for _ in range(2):
        with pytest.raises(RepositoryError, match="segment 'mid' is incomplete or damaged"):
            reader.read()
    (repo / "mid/config.pbtxt").write_text(config)
    (repo / "mid/1/model.onnx").rename(repo / "model.onnx")
    with pytest.raises(RepositoryError, match="Segment 'mid' has no model"):
        reader.read()
    (repo / "model.onnx").rename(repo / "mid/1/model.onnx")
    assert reader.read() == good


def test_the_ensemble_of_all_tasks_is_read_once(repo: Path) -> None:
    reader = RepositoryReader(repo)
    first = reader.read()
    (repo / ALL_TASKS / "config.pbtxt").write_text("{}{")
    assert reader.read() == first
    with pytest.raises(RepositoryError, match=r"all_tasks/config\.pbtxt is not a Triton model"):
        read_repository(repo)


def test_what_is_gone_is_forgotten(repo: Path) -> None:
    reader = RepositoryReader(repo)
    reader.read()
    known = len(reader._parsed)
    shutil.rmtree(repo / "late")
    reader.read()
    assert len(reader._parsed) == known - 2  # and the ensemble, which is kept apart


def test_a_change_parses_once_what_stays_as_it_is(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the three readings opens every file: before the lock, under it (somebody may have written), and what was written."""
    parsed: list[str] = []

    def counting(text: str, where: str) -> object:
        parsed.append(where)
        return parse_text(text, where)

    write_all_tasks(repo, read_repository(repo).tasks.values())  # as today's version writes it
    monkeypatch.setattr(contract.repository.parsed_configs, "parse_text", counting)
    with changed(repo) as change:
        change.keep_all_but({ALL_TASKS})
        assert change.write_all_tasks(change.repository.tasks.values()) == replace(change.repository, path=change.folder)
    assert sorted(parsed) == sorted(f"{entry.name}/config.pbtxt" for entry in repo.iterdir())


def test_a_change_sees_how_the_repository_is_cut_when_its_turn_comes(repo: Path) -> None:
    reader = RepositoryReader(repo)
    first = reader.read()
    write_all_tasks(repo, first.tasks.values(), ["No cut."], "stages")
    assert reader.read().cuts_left_out == ()  # no answer depends on it
    found = reader.at(repo).read()
    assert (found.cuts_left_out, found.cut_rule) == (("No cut.",), "stages")
    assert found.tasks == first.tasks
