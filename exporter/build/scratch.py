"""Folders for what is needed while a command works. What a killed command left of them is deleted by the next."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from exporter.errors import NoScratch

_PREFIX = ".espalier-scratch-"


@contextmanager
def scratch_folder(repository: Path) -> Iterator[Path]:
    """Yield an empty folder, and delete it at the end: below the system's for temporary files, or if there is none, beside `repository`.

    It is locked as long as this process lives, in whatever way it ends: by that others know whether it is still of use.
    Raises NoScratch where neither can be written.
    """
    base = _place(repository)
    for left in base.glob(f"{_PREFIX}*"):
        _delete_if_left(left)
    folder, descriptor = _make(base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _place(repository: Path) -> Path:
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError:  # what is above the repository is made with it
        place = next(folder for folder in repository.absolute().parents if folder.is_dir())
    if not os.access(place, os.W_OK):
        raise NoScratch(place)
    return place


def _make(base: Path) -> tuple[Path, int]:
    """Return a new folder and its lock. Another process may take it for one that was left, until it is locked; then there is a next."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        with suppress(OSError):
            descriptor = _open(folder)
            if _lock(descriptor) and folder.exists():
                return folder, descriptor
            os.close(descriptor)


def _delete_if_left(folder: Path) -> None:
    """Delete `folder` if it is this user's and its process is gone. A link of that name is somebody's joke."""
    with suppress(OSError):
        descriptor = _open(folder)
        try:
            if os.fstat(descriptor).st_uid == os.geteuid() and _lock(descriptor):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
