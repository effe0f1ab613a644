"""Copies of folders that share their files' contents with the original."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

# What file systems answer that have no hard links, or no more of them for this file, or none for files of somebody else.
_CANNOT_LINK = (errno.EPERM, errno.EACCES, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


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


def _link(source: str | os.PathLike[str], target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT_LINK:
            raise
        shutil.copy2(source, target, follow_symlinks=False)
