"""What a file system does with whole folders: copy by links, change the place of two in one step, survive a power cut."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# What the kernel, the C library or the file system answers when it cannot exchange.
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
# What some file systems (network ones, FUSE) answer when they are asked to sync a folder.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
# What file systems answer that have no hard links, or no more of them for this file, or none for files of somebody else.
_CANNOT_LINK = (errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
_MANY, _AT_ONCE = 200, 32  # a tree with fewer entries is synced one after the other, of others so many at once


def link_tree(source: Path, target: Path) -> None:
    """Let `target`, which does not exist, be a copy of the file or folder `source`: its files by hard links, or copied if need be.

    Symbolic links stay what they are. Raises OSError.
    """
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        shutil.copytree(source, target, symlinks=True, copy_function=_link)
    else:
        _link(str(source), str(target))


def put_in_place(new: Path, target: Path, spare: Path) -> None:
    """Let the folder `new` stand at `target`. What stood there, if anything, is at `new` or at `spare` afterwards.

    It is one atomic step: a rename where nothing stood, an exchange (renameat2(2), Linux 3.15) where something did. File systems
    that cannot exchange get two renames, `target` to `spare` and `new` to `target`; a process that dies between them leaves no
    `target`, and what stood there whole at `spare`, from where it can be put back. All three are on one file system.

    Raises OSError; then `target` is as it was.
    """
    if not os.path.lexists(target):
        new.rename(target)
        return
    try:
        exchange(new, target)
    except OSError as error:
        if error.errno not in _CANNOT_EXCHANGE:
            raise
        _replace_in_two_steps(new, target, spare)


def exchange(one: Path, other: Path) -> None:
    """Let `one` and `other`, which both exist, change place atomically. Raises OSError; ENOSYS where the system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if library.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))


def sync_tree(folder: Path) -> None:
    """Have everything in `folder`, and itself, written to disk. Raises OSError when the disk refuses, as a full one may only now."""
    paths: list[Path] = []
    for root, _, files in os.walk(folder, topdown=False):
        found = (Path(root, file) for file in files)
        paths += [path for path in found if path.is_file() and not path.is_symlink()]
        paths.append(Path(root))
    if len(paths) < _MANY:
        for path in paths:
            sync(path)
        return
    # What is asked for at once, a file system writes at once; one after the other, each waits for the disk.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(sync, paths):
            pass


def sync(path: Path) -> None:
    """Have one file, or the entries of one folder, written to disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        # We can read what we wrote; this came from somebody else, by a link, and lies on the disk already.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def _replace_in_two_steps(new: Path, target: Path, spare: Path) -> None:
    target.rename(spare)
    try:
        new.rename(target)
    except BaseException:
        spare.rename(target)
        raise


def link_file(source: Path, target: Path) -> bool:
    """Let `target`, which does not exist, be a hard link of the file `source`, or a copy; return whether it is a link. Raises OSError."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        shutil.copy2(source, target, follow_symlinks=False)
        return False
    return True


def _link(source: str | os.PathLike[str], target: str) -> None:
    link_file(Path(source), Path(target))
