"""Configurations that were parsed once are not parsed by the next process, and nothing else follows from that they are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import contract.repository.parsed_configs
from contract.errors import RepositoryError
from contract.repository import read_repository
from contract.repository.config import parse_text
from contract.repository.parsed_configs import _read, _write
from contract.repository.read import RepositoryReader
from tests.contract.repository.test_repository import CANARY, PREVIOUS, edit, keep
from tests.serving.nets import write_repository


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    write_repository(tmp_path / "repo")
    keep(tmp_path / "repo", "canary", CANARY)
    keep(tmp_path / "repo", "previous", PREVIOUS)
    return tmp_path / "repo"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "configs"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is parsed from now on."""
    found: list[str] = []

    def parse(text: str, where: str) -> object:
        found.append(where)
        return parse_text(text, where)

    monkeypatch.setattr(contract.repository.parsed_configs, "parse_text", parse)
    return found


def test_the_next_process_parses_nothing_and_reads_the_same(repo: Path, folder: Path, parsed: list[str]) -> None:
    first = RepositoryReader(repo, configs=folder).read()
    assert {"probe/config.pbtxt", "probe/canary/config.pbtxt", "mid/config.pbtxt"} <= {*parsed}
    parsed.clear()
    assert RepositoryReader(repo, configs=folder).read() == first
    assert not parsed
    assert first == read_repository(repo)


def test_a_text_that_has_changed_is_parsed_and_kept_from_then_on(repo: Path, folder: Path, parsed: list[str]) -> None:
    RepositoryReader(repo, configs=folder).read()
    edit(repo / "parity/config.pbtxt", "max_batch_size: 6\n", "max_batch_size: 5\n")
    parsed.clear()
    assert RepositoryReader(repo, configs=folder).read().tasks["parity"].max_batch_rows == 5
    assert parsed == ["parity/config.pbtxt"]
    parsed.clear()
    assert RepositoryReader(repo, configs=folder).read().tasks["parity"].max_batch_rows == 5
    assert not parsed


def test_what_is_wrong_is_said_each_time(repo: Path, folder: Path) -> None:
    RepositoryReader(repo, configs=folder).read()
    edit(repo / "parity/config.pbtxt", "max_batch_size: 6\n", "max_batch_size: 6 6\n")
    for _ in range(2):
        with pytest.raises(RepositoryError, match=r"parity/config\.pbtxt is not a Triton model configuration"):
            RepositoryReader(repo, configs=folder).read()


def test_a_text_that_is_named_otherwise_is_refused_though_it_is_known(repo: Path, folder: Path) -> None:
    RepositoryReader(repo, configs=folder).read()
    (repo / "parity/config.pbtxt").write_bytes((repo / "probe/config.pbtxt").read_bytes())
    with pytest.raises(RepositoryError, match="named 'probe'; it must be named like its folder"):
        RepositoryReader(repo, configs=folder).read()


@pytest.mark.parametrize("at", [0, 40, 100, -1])
def test_a_damaged_file_is_not_believed_and_made_anew(
    repo: Path, folder: Path, parsed: list[str], at: int, caplog: pytest.LogCaptureFixture
) -> None:
    first = RepositoryReader(repo, configs=folder).read()
    (file,) = folder.iterdir()
    whole = bytearray(file.read_bytes())
    whole[at] ^= 1
    file.write_bytes(whole)
    count, _ = len(parsed), parsed.clear()
    assert RepositoryReader(repo, configs=folder).read() == first
    assert len(parsed) == count
    assert f"{file} is damaged and not used" in caplog.text
    parsed.clear()
    assert RepositoryReader(repo, configs=folder).read() == first
    assert not parsed


@pytest.mark.parametrize("size", [0, 10, 500])
def test_half_a_file_is_not_believed(repo: Path, folder: Path, size: int) -> None:
    first = RepositoryReader(repo, configs=folder).read()
    (file,) = folder.iterdir()
    os.truncate(file, size)
    assert RepositoryReader(repo, configs=folder).read() == first


def test_a_file_of_another_schema_is_parsed_again(
    repo: Path, folder: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    RepositoryReader(repo, configs=folder).read()
    parsed.clear()
    monkeypatch.setattr(contract.repository.parsed_configs, "_FORMAT", b"another\n")
    RepositoryReader(repo, configs=folder).read()
    assert parsed


def test_nothing_is_kept_where_others_could_write(repo: Path, folder: Path, parsed: list[str]) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    RepositoryReader(repo, configs=folder).read()
    assert not [*folder.iterdir()]
    folder.chmod(0o700)
    RepositoryReader(repo, configs=folder).read()
    folder.chmod(0o777)
    parsed.clear()
    RepositoryReader(repo, configs=folder).read()
    assert parsed


def test_repositories_do_not_fill_the_folder(
    repo: Path, folder: Path, parsed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract.repository.parsed_configs, "_MOST_FILES", 2)
    for name in ("a", "b", "c"):
        (repo.parent / name).symlink_to(repo)
        RepositoryReader(repo.parent / name, configs=folder).read()
    assert len([*folder.iterdir()]) == 1  # one repository, however it is called
    for name in ("d", "e", "f"):
        write_repository(repo.parent / name)
        RepositoryReader(repo.parent / name, configs=folder).read()
    assert len([*folder.iterdir()]) == 2
    parsed.clear()
    RepositoryReader(repo.parent / "f", configs=folder).read()
    assert not parsed  # it is the oldest that go


def test_two_threads_that_keep_at_once_do_not_write_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins, and ends, while the first is about to put its file in its place."""
    file, replace, taken = tmp_path / "cache/configs/one.bin", Path.replace, []

    def replacing(self: Path, target: Path) -> Path:
        taken.append(self.name)
        if len(taken) == 1:
            _write(file, {b"2" * 32: b"second"})
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replacing)
    _write(file, {b"1" * 32: b"first"})
    assert len(set(taken)) == 2
    assert _read(file) == {b"1" * 32: b"first"}
    assert [path.name for path in file.parent.iterdir()] == ["one.bin"]
