"""One writer at a time: an advisory lock on a file that is gone again when nobody writes."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path

PATIENCE_S = 1.0
_POLL_S = 0.05
# Each attempt fails only because another writer came or went in that very moment.
_ATTEMPTS = 1000


@contextmanager
def locked(file: Path, waiting: Callable[[], None], check: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Hold the lock that `file` stands for; its folder is made when it is missing, for this user only, and so are the folders above.

    check: raises what is wrong with the folder, where it was there already.

    Yields a function that says whether it is still so: whoever deletes the file from outside takes the lock away.

    Another process (or thread) that holds it is waited for, however long that takes; after PATIENCE_S `waiting()` is called.
    The kernel gives the lock back when its holder dies, in whatever way. The holder should delete `file` before it lets go: who
    waits then finds that what it has locked is not what stands at the path any more, and begins again. So the lock leaves nothing.
    Folders that were made vanish again, if they are empty, when the block fails.

    Raises OSError when the file cannot be made, or the file system knows no locks (`flock`).
    """
    made: list[Path] = []
    try:
        with _acquired(file, made, waiting, check) as handle:
            yield lambda: _stands_at(file, handle)
    except BaseException:
        for folder in reversed(made):
            _remove_if_empty(folder)
        raise


@contextmanager
def _acquired(file: Path, made: list[Path], waiting: Callable[[], None], check: Callable[[], None]) -> Iterator[BufferedWriter]:
    for attempt in range(_ATTEMPTS):
        try:
            if not _make_folder(file.parent, made, mode=0o700):
                check()
            handle = open(file, "ab", opener=_open_no_link)  # noqa: SIM115 (Path.open takes no opener)
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
            continue
        with handle:
            _lock(handle, waiting)
            if _stands_at(file, handle):
                yield handle
                return


def _stands_at(file: Path, handle: BufferedWriter) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), file.lstat())
    except FileNotFoundError:
        return False


def _lock(handle: BufferedWriter, waiting: Callable[[], None]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_POLL_S)
        else:
            return
    waiting()
    fcntl.flock(handle, fcntl.LOCK_EX)


def _make_folder(folder: Path, made: list[Path], mode: int = 0o777) -> bool:
    """Make `folder`, and what is missing above it, and append to `made` what was; say whether `folder` was."""
    if os.path.lexists(folder):
        return False
    if not folder.parent.is_dir():
        _make_folder(folder.parent, made)
    try:
        folder.mkdir(mode)
    except FileExistsError:
        return False
    made.append(folder)
    return True


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
