"""`espalier gc`: what no task refers to goes, all else stays the very same files."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.errors import RepositoryError
from contract.repository import Repository, read_repository
from exporter.gc import collect_garbage, unused_segments
from exporter.remove import remove_tasks
from tests.contract.repository.states import names_in, replace_with, state
from tests.espalier.test_cli import espalier


@pytest.fixture
def repo(tmp_path: Path, old: Repository) -> Path:
    replace_with(tmp_path / "repo", old)
    (tmp_path / "repo" / "notes.txt").write_text("by somebody else")
    return tmp_path / "repo"


def test_where_everything_is_used_nothing_is_touched(repo: Path) -> None:
    inode = repo.stat().st_ino
    assert collect_garbage(repo) == {}
    assert repo.stat().st_ino == inode


def test_what_a_killed_writer_left_goes(repo: Path) -> None:
    for name in ("new", "trash"):
        (repo.parent / ".repo.espalier" / name / "segment").mkdir(parents=True)
    (repo.parent / ".repo.espalier" / "lock").touch()
    before = state(repo)
    collect_garbage(repo, dry_run=True)
    assert names_in(repo.parent) == [".repo.espalier", "repo"]
    collect_garbage(repo)
    assert names_in(repo.parent) == ["repo"]
    assert state(repo) == before


def test_only_what_no_task_refers_to_goes(repo: Path) -> None:
    remove_tasks(repo, ["alpha"])
    before, known = state(repo), read_repository(repo)
    unused = unused_segments(known)
    assert [name.split("-")[0] for name in unused] == ["alpha"]
    assert collect_garbage(repo, dry_run=True) == unused
    assert state(repo) == before
    assert collect_garbage(repo) == unused
    assert state(repo) == {path: digest for path, digest in before.items() if Path(path).parts[0] not in unused}
    after = read_repository(repo)
    assert after.tasks == known.tasks
    assert after.segments == {name: segment for name, segment in known.segments.items() if name not in unused}
    assert names_in(repo.parent) == ["repo"]


def test_what_is_freed_is_counted_in_bytes_of_files(repo: Path) -> None:
    (name,) = remove_tasks(repo, ["alpha"]).unused
    size = sum(file.stat().st_size for file in (repo / name).rglob("*") if file.is_file())
    before = _size(repo)
    assert collect_garbage(repo) == {name: size}
    assert before - _size(repo) == size > 0


def test_no_repository_is_refused_and_nothing_made_beside_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "nowhere"):
        with pytest.raises(RepositoryError):
            collect_garbage(path)
    assert names_in(tmp_path) == ["folder"]


def test_the_command_says_what_it_does(repo: Path) -> None:
    assert "nothing to remove" in espalier("gc", repo).stdout
    (name,) = remove_tasks(repo, ["alpha"]).unused
    run = espalier("gc", repo, "--dry-run")
    assert run.returncode == 0
    assert name in run.stdout
    assert "Would remove 1 segment and free" in run.stdout
    assert (repo / name).exists()
    assert "Removed 1 segment and freed" in espalier("gc", repo).stdout
    assert not (repo / name).exists()


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
