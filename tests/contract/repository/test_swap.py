"""Writers in processes of their own: at once, killed, and on disks that refuse."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract.errors import ChangedMeanwhile, MountPoint, NotOurs, NotWritten, RepositoryError
from contract.repository import Repository, read_repository
from contract.repository.transaction import file_system, lock
from contract.repository.transaction import folder as transaction_folder
from contract.repository.transaction.folder import only_writer, recover, silent
from contract.repository.write import Change, changed, model_path, write_models, written
from tests.contract.repository.states import is_whole, keep_all, names_in, replace_with, rewrite, state
from tests.espalier.test_cli import espalier
from tests.exporter.test_export import FAMILY, export

pytestmark = pytest.mark.slow  # real processes that wait, and are killed

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def repo(tmp_path: Path, old: Repository) -> Path:
    replace_with(tmp_path / "below" / "repo", old)
    return tmp_path / "below" / "repo"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start writers; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def begin(what: str, repo: Path, argument: str | Path = "") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.contract.repository.writer", what, str(repo), str(argument)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_writers_at_once_work_one_after_the_other_on_the_newest_state(tmp_path: Path, start: Start) -> None:
    repo = tmp_path / "repo"
    export(repo, FAMILY)
    with only_writer(repo, silent):
        removers = [start("remove", repo, task) for task in ("probe", "late", "early")]
        for remover in removers:
            assert first_line(remover) == f"Another process is writing {repo}; waiting for it to end."
    for remover in removers:
        out, _ = remover.communicate()
        assert remover.returncode == 0, out
    assert list(read_repository(repo).tasks) == ["middle"]
    assert names_in(tmp_path) == ["repo"]


def test_of_two_writers_that_would_create_one_repository_one_does(tmp_path: Path, old: Repository, start: Start) -> None:
    repo = tmp_path / "below" / "repo"
    with only_writer(repo, silent):
        writers = [start("create", repo, old.path) for _ in range(2)]
        for writer in writers:
            assert "waiting" in first_line(writer)
    said = [writer.communicate()[0] for writer in writers]
    assert sorted(writer.returncode for writer in writers) == [0, 2]
    assert any(line.startswith(f"OutputExists: {repo} exists already") for line in said)
    assert state(repo) == state(old.path)
    assert names_in(repo.parent) == ["repo"]


def test_a_killed_writer_gives_way_to_the_one_that_waits(repo: Path, start: Start) -> None:
    before = state(repo)
    holder = start("hang", repo)
    assert first_line(holder) == "holding"
    remover = start("remove", repo, "alpha")
    assert "waiting" in first_line(remover)
    holder.kill()
    holder.wait()
    out, _ = remover.communicate()
    assert remover.returncode == 0, out
    assert list(read_repository(repo).tasks) == ["beta"]
    assert state(repo) != before
    assert names_in(repo.parent) == ["repo"]


def test_writers_killed_at_random_moments_leave_one_of_the_states(
    repo: Path, old: Repository, new: Repository, start: Start
) -> None:
    process = start("campaign", repo, f"{old.path},{new.path},25,1")
    out, _ = process.communicate()
    assert process.returncode == 0, out


def test_a_full_disk_changes_nothing(tmp_path: Path, old: Repository, start: Start) -> None:
    repo = tmp_path / "made" / "for" / "it"
    process = start("create_on_full_disk", repo, old.path)
    out, _ = process.communicate()
    assert process.returncode == 2, out
    assert out.strip() == f"NotWritten: {repo} could not be written (File too large); nothing was changed."
    assert names_in(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_without_permission_nothing_is_changed(repo: Path) -> None:
    repo.parent.chmod(0o555)
    try:
        with pytest.raises(NotWritten, match=r"Permission denied.*nothing was changed"):
            rewrite(repo)
        assert names_in(repo.parent) == ["repo"]
    finally:
        repo.parent.chmod(0o755)


@pytest.mark.parametrize("below", ["x" * 300, "file/repo"])
def test_a_place_that_cannot_be_is_one_sentence(tmp_path: Path, old: Repository, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritten, match="nothing was changed"):
        replace_with(tmp_path / "made" / below if "file" not in below else tmp_path / below, old)
    assert names_in(tmp_path) == ["file"]


def test_a_failed_block_leaves_nothing_but_the_folders_that_others_use(tmp_path: Path) -> None:
    def fail() -> None:
        with written(tmp_path / "a" / "b" / "repo", force=False):
            (tmp_path / "a" / "theirs").write_text("")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names_in(tmp_path / "a") == ["theirs"]


def test_what_is_kept_is_the_same_file_and_what_is_foreign_stays(repo: Path) -> None:
    (repo / "theirs").mkdir()
    (repo / "theirs" / "link").symlink_to("../notes.txt")
    (repo / "notes.txt").write_text("by somebody else")
    before, inodes = state(repo), inodes_in(repo)
    rewrite(repo)
    assert (state(repo), inodes_in(repo)) == (before, inodes)


def test_writing_over_what_was_kept_does_not_write_into_the_old_state(repo: Path) -> None:
    before = state(repo)
    with only_writer(repo, silent) as place:
        place.begin()
        change = Change(read_repository(repo), place.new)
        keep_all(change)
        for segment in change.repository.segments.values():
            model_path(place.new, segment.name).write_bytes(b"another")
            write_models(place.new, {segment.name: replace(segment, digest="another")}, {})
        assert state(place.new) != before
        assert state(repo) == before


def test_a_second_rename_that_fails_takes_the_first_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    (tmp_path / "target").mkdir()
    monkeypatch.setattr(file_system, "exchange", refuse)
    with pytest.raises(FileNotFoundError):
        file_system.put_in_place(tmp_path / "missing", tmp_path / "target", tmp_path / "spare")
    assert names_in(tmp_path) == ["target"]


def test_who_lost_the_lock_touches_nothing(repo: Path) -> None:
    def lose() -> None:
        with changed(repo) as change:
            keep_all(change)
            (repo.parent / ".repo.espalier" / "lock").unlink()
            (repo.parent / ".repo.espalier" / "lock").touch()

    before = state(repo)
    with pytest.raises(ChangedMeanwhile):
        lose()
    assert state(repo) == before
    assert names_in(repo.parent / ".repo.espalier") == ["lock", "new"]


def test_without_hard_links_files_are_copied(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object, **options: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    before, inodes = state(repo), inodes_in(repo)
    monkeypatch.setattr(os, "link", refuse)
    rewrite(repo)
    assert state(repo) == before
    assert not inodes_in(repo) & inodes


def test_a_repository_behind_a_link_is_replaced_there(repo: Path, tmp_path: Path, new: Repository) -> None:
    (tmp_path / "current").symlink_to("below/repo")
    replace_with(tmp_path / "current", new)
    assert (tmp_path / "current").is_symlink()
    assert state(repo) == state(new.path)
    assert names_in(tmp_path) == ["below", "current"]


def test_a_folder_keeps_its_mode(repo: Path) -> None:
    repo.chmod(0o750)
    rewrite(repo)
    assert repo.stat().st_mode & 0o777 == 0o750


def test_what_somebody_else_writes_meanwhile_is_not_lost(repo: Path) -> None:
    def work_together() -> None:
        with changed(repo) as change:
            keep_all(change)
            (repo / "notes.txt").write_text("just now")

    with pytest.raises(ChangedMeanwhile):
        work_together()
    assert (repo / "notes.txt").read_text() == "just now"
    assert names_in(repo.parent) == ["repo"]


def test_a_folder_of_the_same_name_that_is_not_ours_is_spared(repo: Path) -> None:
    theirs = repo.parent / ".repo.espalier"
    for make in (lambda: theirs.write_text("mine"), lambda: theirs.symlink_to(repo)):
        make()
        with pytest.raises(NotOurs, match="in the way"):
            rewrite(repo)
        assert is_whole(repo)
        theirs.unlink()
    theirs.mkdir()
    (theirs / "new").mkdir()
    (theirs / "new" / "thesis.txt").write_text("years of work")
    with pytest.raises(NotOurs):
        rewrite(repo)
    assert (theirs / "new" / "thesis.txt").exists()


def test_a_mounted_file_system_is_not_moved(tmp_path: Path, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere:
        st_dev = -1

    monkeypatch.setattr(os, "lstat", lambda path: Elsewhere)
    with pytest.raises(MountPoint, match="nothing was changed"):
        transaction_folder._check_mounts(repo, repo)


def test_folders_that_may_not_be_written_are_deleted_all_the_same(repo: Path) -> None:
    (repo / "theirs" / "below").mkdir(parents=True)
    (repo / "theirs" / "below" / "file").write_text("")
    (repo / "theirs" / "below").chmod(0o555)
    (repo / "theirs").chmod(0o555)
    rewrite(repo)
    assert (repo / "theirs" / "below" / "file").exists()
    assert names_in(repo.parent) == ["repo"]
    (repo / "theirs").chmod(0o755)


def test_a_reader_puts_back_what_a_kill_between_two_renames_took_away(repo: Path) -> None:
    before = state(repo)
    place = repo.parent / ".repo.espalier"
    place.mkdir()
    (place / "lock").touch()
    repo.rename(place / "old")
    with pytest.raises(RepositoryError):
        read_repository(repo)
    recover(repo)
    assert state(repo) == before
    assert names_in(repo.parent) == ["repo"]


def test_recovery_of_what_is_whole_does_nothing(tmp_path: Path, repo: Path) -> None:
    recover(repo)
    recover(tmp_path / "nowhere" / "at" / "all")
    assert names_in(tmp_path) == ["below"]


def test_inspect_puts_it_back(repo: Path) -> None:
    place = repo.parent / ".repo.espalier"
    place.mkdir()
    (place / "lock").touch()
    repo.rename(place / "old")
    assert espalier("inspect", repo).returncode == 0
    assert names_in(repo.parent) == ["repo"]


def test_all_is_on_disk_before_it_takes_its_place_and_its_place_before_the_old_is_deleted(
    repo: Path, new: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, exchange, rmdir = os.fsync, file_system.exchange, os.rmdir

    def synced(descriptor: int) -> None:
        steps.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink()}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(file_system, "exchange", lambda *paths: (steps.append("exchange"), exchange(*paths)))
    monkeypatch.setattr(os, "rmdir", lambda *arguments, **options: (steps.append("delete"), rmdir(*arguments, **options)))
    replace_with(repo, new)
    place, swapped = repo.parent / ".repo.espalier", steps.index("exchange")
    expected = {f"sync {place / 'new' / path}" for path in (".", *state(repo))} | {f"sync {place}"}
    assert expected == set(steps[:swapped])
    assert f"sync {repo.parent}" in steps[swapped : steps.index("delete")]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EINVAL])
def test_two_renames_where_the_file_system_cannot_exchange(
    tmp_path: Path, repo: Path, new: Repository, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(file_system, "exchange", refuse)
    replace_with(repo, new)
    assert state(repo) == state(new.path)
    assert names_in(repo.parent) == ["repo"]


def test_threads_wait_for_each_other_too(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_S", 0.0)
    waiting = threading.Event()

    def write() -> None:
        with changed(repo, lambda sentence: waiting.set()) as change:
            keep_all(change)

    writer = threading.Thread(target=write)
    with only_writer(repo, silent):
        writer.start()
        assert waiting.wait(30)
    writer.join(30)
    assert not writer.is_alive()
    assert names_in(repo.parent) == ["repo"]


@pytest.mark.parametrize("swaps", [1, 2])
def test_a_reader_never_sees_a_mixture(
    repo: Path, old: Repository, new: Repository, monkeypatch: pytest.MonkeyPatch, swaps: int
) -> None:
    """The repository is replaced while file number `moment` is read; with two swaps an inode number may come back."""
    read_text, known = Path.read_text, [(one.segments, one.tasks) for one in (old, new)]
    for moment in range(len(old.segments) + len(old.tasks) + 1):
        replace_with(repo, old)
        reads = 0

        def disturbed(path: Path, *arguments: str, moment: int = moment, **options: str) -> str:
            nonlocal reads
            reads += path.is_relative_to(repo)
            if path.is_relative_to(repo) and reads - 1 in range(moment, moment + swaps):
                with monkeypatch.context() as undisturbed:
                    undisturbed.setattr(Path, "read_text", read_text)
                    replace_with(repo, new if (reads - 1 - moment) % 2 == 0 else old)
            return read_text(path, *arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_text", disturbed)
            found = read_repository(repo)
        assert (found.segments, found.tasks) in known


def inodes_in(folder: Path) -> set[int]:
    return {path.lstat().st_ino for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
