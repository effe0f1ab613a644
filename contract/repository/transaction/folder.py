"""The hidden folder beside a repository: where its next state is built, and what a killed writer leaves for the next one to mend.

    repo/                  the repository: its old state, until its new one stands there
    .repo.espalier/lock    held by the writer, so that there is only one; its presence marks the folder as ours
    .repo.espalier/new     the new state while it is built; after the exchange the old one, about to be deleted
    .repo.espalier/old     the old state, whole, between the two renames of file systems that cannot exchange
    .repo.espalier/trash   about to be deleted

Promised: whatever moment a writer dies at, its old or its new state stands at `repo`, whole (on file systems that cannot exchange,
once `recover` or another writer has looked); the next writer removes the rest. The new state is on disk before it takes its place,
and its place is on disk before the old state is deleted, so a power cut is such a moment too, as far as the disk keeps its word.
Not promised: anything against programs that write into these folders without the lock. Only its owner, the writer or root, may write into
the hidden folder; one that others have made, or may write into, is not used.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contract.errors import ChangedMeanwhile, MountPoint, NotDurable, NotOurs, NotWritten, OthersFolder
from contract.repository.transaction.file_system import put_in_place, sync, sync_tree
from contract.repository.transaction.lock import locked

Waiting = Callable[[str], None]
_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_LOCK, _NEW, _OLD, _TRASH = "lock", "new", "old", "trash"


def silent(sentence: str) -> None:
    """Take a sentence and say nothing."""


class Transaction:
    """What the writer that holds the lock may do. `new`: the folder in which it builds the repository's next state."""

    def __init__(self, repo: Path) -> None:
        self._repo = repo
        # Through links, so that the folder is replaced and not the link to it; absolute, so that changing directory does no harm.
        self.target = Path(os.path.realpath(repo))
        self.folder = self.target.parent / f".{self.target.name}.espalier"
        self.new = self.folder / _NEW
        self.held: Callable[[], bool] = lambda: False
        self._seen: frozenset[tuple[str, int]] = frozenset()

    @property
    def lock(self) -> Path:
        """The file whose lock makes this process the only writer."""
        return self.folder / _LOCK

    def check_ours(self) -> None:
        """Raise NotOurs if the hidden folder's name is taken by something else, OthersFolder if others may have filled it."""
        try:
            status = self.folder.lstat()
        except (FileNotFoundError, NotADirectoryError):  # a file stands above: that nothing can be made there, says who tries
            return
        if not stat.S_ISDIR(status.st_mode):
            raise NotOurs(self.folder)
        # What is in it becomes the repository, or is put back in its place.
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & _BY_OTHERS:
            raise OthersFolder(self.folder, status)
        names = {entry.name for entry in self.folder.iterdir()}
        if names and (_LOCK not in names or names - {_LOCK, _NEW, _OLD, _TRASH}):
            raise NotOurs(self.folder)

    def recover(self) -> None:
        """Finish what a killed writer left: put the old state back if nothing stands in its place, and delete the rest."""
        old, trash = self.folder / _OLD, self.folder / _TRASH
        _delete(trash)
        if old.exists():
            # Never deleted in place: what is called old is whole.
            old.rename(trash if os.path.lexists(self.target) else self.target)
        for leftover in (self.new, trash):
            _delete(leftover)

    def begin(self) -> None:
        """Make the empty folder `new`. Raises MountPoint where no folder could take the repository's transaction."""
        _check_mounts(self._repo, self.target)
        self._seen = _entries(self.target)
        self.new.mkdir()

    def commit(self) -> None:
        """Let `new` take the repository's place. Raises OSError or ChangedMeanwhile if it cannot; then nothing was changed."""
        sync_tree(self.new)
        sync(self.folder)
        if _entries(self.target) != self._seen or not self.held():
            raise ChangedMeanwhile(self._repo)
        if self.target.is_dir():
            shutil.copymode(self.target, self.new)
        put_in_place(self.new, self.target, self.folder / _OLD)
        try:
            sync(self.target.parent)
            sync(self.folder)
        except OSError as error:
            raise NotDurable(self._repo, reason(error)) from error

    def close(self) -> None:
        """Delete what is left, at last the lock; as far as possible: the next writer tries again."""
        try:
            self.recover()
            if [entry.name for entry in self.folder.iterdir()] == [_LOCK]:
                self.lock.unlink()
                self.folder.rmdir()
        except OSError:
            return


@contextmanager
def only_writer(repo: Path, waiting: Waiting) -> Iterator[Transaction]:
    """Be the only writer of `repo`, on its newest state, mended if need be; then leave nothing but the repository.

    Another writer is waited for; `waiting` is given a sentence that says so. Raises NotOurs, OthersFolder, and NotWritten when the
    folder that is to hold the repository cannot be written.
    """
    transaction = Transaction(repo)
    sentence = f"Another process is writing {repo}; waiting for it to end."
    with locked(transaction.lock, lambda: waiting(sentence), transaction.check_ours) as held:
        transaction.held = held
        try:
            _recover(transaction)
            yield transaction
        finally:
            if held():
                transaction.close()


def recover(repo: Path, waiting: Waiting = silent) -> None:
    """Put `repo` back if a writer was killed while it stood nowhere (only where file systems cannot exchange); else do nothing.

    For readers, before they read. Raises NotWritten when the folders cannot be written.
    """
    transaction = Transaction(repo)
    if not os.path.lexists(transaction.target) and os.path.isdir(transaction.folder / _OLD):  # noqa: PTH112 (False where it may not be looked into)
        tidy(repo, waiting)


def tidy(repo: Path, waiting: Waiting = silent) -> None:
    """Mend and delete what a killed writer left of its work on `repo`, as every writer does first.

    Raises NotWritten when the folders cannot be written.
    """
    if not os.path.lexists(Transaction(repo).folder):
        return
    try:
        with only_writer(repo, waiting):
            pass
    except OSError as error:
        raise NotWritten(f"What a killed process left beside {repo} cannot be put right ({reason(error)}).") from error


def reason(error: OSError) -> str:
    """Return why `error` happened, for a sentence."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][2])  # what copytree collects: (source, destination, why)
    return error.strerror or str(error)


def _recover(transaction: Transaction) -> None:
    try:
        transaction.recover()
    except OSError as error:
        raise NotWritten(
            f"{transaction.folder}, which a process left that was killed, cannot be deleted ({reason(error)}); delete it."
        ) from error


def _check_mounts(repo: Path, target: Path) -> None:
    """A mount point cannot be renamed, and one inside would be moved along and emptied with the old state."""
    device = target.parent.stat().st_dev
    for root, _, _ in os.walk(target):
        if os.lstat(root).st_dev != device:
            raise MountPoint(repo, Path(root))


def _entries(folder: Path) -> frozenset[tuple[str, int]]:
    """Return the path and inode of everything in `folder`, and of itself; nothing if it does not exist."""
    if not os.path.lexists(folder):
        return frozenset()
    return frozenset({(".", folder.lstat().st_ino), *_entries_in(folder, "")})


def _entries_in(folder: Path | str, prefix: str) -> Iterator[tuple[str, int]]:
    try:
        entries = [*os.scandir(folder)]
    except PermissionError:
        return
    for entry in entries:
        yield prefix + entry.name, entry.stat(follow_symlinks=False).st_ino
        if entry.is_dir(follow_symlinks=False):
            yield from _entries_in(entry.path, f"{prefix}{entry.name}/")


def _delete(folder: Path) -> None:
    """Delete `folder` if it exists. Raises OSError if something of it stays."""
    if not os.path.lexists(folder):
        return
    _open_up(folder)
    for root, names, _ in os.walk(folder):
        for name in names:
            _open_up(Path(root, name))
    shutil.rmtree(folder)


def _open_up(folder: Path) -> None:
    """Folders keep the modes of those that they were copied from; what may not be written could not be emptied."""
    if not folder.is_symlink() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        folder.chmod(stat.S_IRWXU)
