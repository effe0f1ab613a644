"""What another user has put where espalier works is not used, and nothing is changed."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contract.errors import NotOurs, NotWritten, OthersFolder, RepositoryError
from contract.private_folder import make_private_folder
from contract.repository import Repository, read_repository
from contract.repository.transaction.folder import only_writer, recover, silent
from exporter.build.scratch import scratch_folder
from exporter.remove import remove_tasks
from serving.engines.scheduling.batch_size_profile import BatchSizeProfile
from serving.local_triton.environment import set_up
from serving.local_triton.errors import TritonUnavailable
from tests.contract.repository.states import names_in, replace_with, state

STRANGER = 64_242
two_users = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


@pytest.fixture
def repo(tmp_path: Path, old: Repository) -> Path:
    replace_with(tmp_path / "repo", old)
    tmp_path.chmod(0o1777)
    return tmp_path / "repo"


def give(path: Path, user: int = STRANGER) -> None:
    for part in (path, *path.rglob("*")):
        os.chown(part, user, user, follow_symlinks=False)


def lay_a_trap(repo: Path, trap: Repository, place: str) -> Path:
    """Make the hidden folder as if a writer of the repository `trap` had been killed."""
    hidden = repo.parent / f".{repo.name}.espalier"
    hidden.mkdir(mode=0o755)
    (hidden / "lock").touch()
    replace_with(hidden / place, trap)
    return hidden


@two_users
@pytest.mark.parametrize("place", ["new", "old"])
def test_a_hidden_folder_of_a_stranger_is_refused(repo: Path, new: Repository, place: str) -> None:
    hidden = lay_a_trap(repo, new, place)
    give(hidden)
    before, trap = state(repo), state(hidden)
    sentence = rf"^{hidden} belongs to user 64242: .*so nothing was changed\. If nobody writes .* delete that folder"
    with pytest.raises(OthersFolder, match=sentence):
        remove_tasks(repo, ["alpha"])
    assert (state(repo), state(hidden)) == (before, trap)
    repo.rename(repo.with_name("away"))
    with pytest.raises(OthersFolder if place == "old" else RepositoryError):  # it would be put in the repository's place
        remove_tasks(repo, ["alpha"])
    assert not repo.exists()


@two_users
def test_a_lock_that_a_stranger_holds_holds_up_nobody(repo: Path) -> None:
    hidden = repo.parent / ".repo.espalier"
    hidden.mkdir()
    (hidden / "lock").touch()
    give(hidden)
    code = f"import fcntl; f = open({str(hidden / 'lock')!r}); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(OthersFolder):
            remove_tasks(repo, ["alpha"])
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777])
def test_a_hidden_folder_that_others_may_write_into_is_refused(repo: Path, new: Repository, mode: int) -> None:
    hidden = lay_a_trap(repo, new, "new")
    hidden.chmod(mode)
    before = state(repo)
    with pytest.raises(OthersFolder, match="may be written by other users"):
        remove_tasks(repo, ["alpha"])
    assert state(repo) == before
    hidden.chmod(0o755)
    remove_tasks(repo, ["alpha"])  # what a killed writer of this user has left
    assert list(read_repository(repo).tasks) == ["beta"]
    assert names_in(repo.parent) == ["repo"]


def test_nobody_else_can_write_where_a_writer_works_and_links_are_not_followed(repo: Path, tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with only_writer(repo, silent) as place:
            assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    finally:
        os.umask(umask)
    hidden = repo.parent / ".repo.espalier"
    hidden.symlink_to(tmp_path)
    with pytest.raises(NotOurs):
        remove_tasks(repo, ["alpha"])
    hidden.unlink()
    hidden.mkdir(mode=0o700)
    (tmp_path / "elsewhere").write_text("mine")
    (hidden / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotWritten, match=r"Too many levels of symbolic links.*nothing was changed"):
        remove_tasks(repo, ["alpha"])
    assert (tmp_path / "elsewhere").read_text() == "mine"


def test_a_reader_that_may_not_look_into_the_hidden_folder_says_what_it_finds(tmp_path: Path) -> None:
    (tmp_path / ".repo.espalier").mkdir(mode=0)
    recover(tmp_path / "repo")
    with pytest.raises(RepositoryError, match="is not a folder"):
        read_repository(tmp_path / "repo")


@two_users
@pytest.mark.parametrize("trap", ["folder", "link", "open to all"])
def test_a_cache_that_a_stranger_has_made_is_not_used(tmp_path: Path, trap: str, caplog: pytest.LogCaptureFixture) -> None:
    base = tmp_path / "cache"
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    base.symlink_to(target) if trap == "link" else base.mkdir(mode=0o700)
    if trap == "open to all":
        base.chmod(0o777)
    else:
        os.chown(base, STRANGER, STRANGER, follow_symlinks=False)
    uses: list[Callable[[], object]] = [lambda: make_private_folder(base)] * 2
    assert [use() for use in uses] == [False, False]
    assert caplog.messages == [
        f"{base} is not used: it belongs to another user, or others may write into it. Delete it, or set XDG_CACHE_HOME."
    ]
    (base / "rows.json").write_text("{")
    BatchSizeProfile(base / "rows.json", threads=1).save()
    assert (base / "rows.json").read_text() == "{"
    with pytest.raises(TritonUnavailable, match="belongs to another user"):
        set_up(base)
    assert names_in(base) == ["rows.json"]


def test_a_link_of_ones_own_to_another_disk_is_fine(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    assert make_private_folder(tmp_path / "cache")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_scratch_of_a_killed_command_goes_with_the_next_and_that_of_a_living_one_stays(scratch: Path) -> None:
    code = (
        "from pathlib import Path\nfrom exporter.build.scratch import scratch_folder\n"
        "with scratch_folder(Path('repo')) as folder: (folder / 'weights').write_text('large'); print(folder, flush=True); input()"
    )
    command = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert command.stdout is not None
        theirs = Path(command.stdout.readline().strip())
        with scratch_folder(scratch / "repo") as ours:
            assert sorted(scratch.iterdir()) == sorted([theirs, ours])
    finally:
        command.kill()
        command.communicate()
    assert list(scratch.iterdir()) == [theirs]
    with scratch_folder(scratch / "repo") as ours:
        assert list(scratch.iterdir()) == [ours]
        assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    assert list(scratch.iterdir()) == []


def test_what_is_not_our_scratch_is_spared(scratch: Path) -> None:
    (scratch / "mine").mkdir()
    (scratch / "mine" / "file").touch()
    (scratch / ".espalier-scratch-link").symlink_to("mine")
    (scratch / ".espalier-scratch-file").touch()
    if os.geteuid() == 0:
        (scratch / ".espalier-scratch-theirs").mkdir()
        give(scratch / ".espalier-scratch-theirs")
    before = state(scratch)
    with scratch_folder(scratch / "repo"):
        pass
    assert state(scratch) == before
