"""Folders for what is used without being looked at: nobody else may write there."""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)
BY_OTHERS, BY_ALL = 0o022, 0o002  # modes: whom writing is denied


def make_private_folder(folder: Path, denied: int = BY_OTHERS) -> bool:
    """Make `folder`; say whether it is one that only this user (or root) can fill, and log it, once, where it is not. Raises OSError.

    A link to a folder has to be this user's, too: another one's may lead to where our files would do harm. denied: of a mode.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_private(folder, denied):
        return True
    _say_unused(folder)
    return False


def is_private(folder: Path, denied: int = BY_OTHERS) -> bool:
    """Whether only this user (or root) can fill `folder`, which is there. Raises OSError."""
    if not hasattr(os, "geteuid"):
        return True
    link, status = folder.lstat(), folder.stat()
    return {link.st_uid, status.st_uid} <= {0, os.geteuid()} and not status.st_mode & denied


@cache
def _say_unused(folder: Path) -> None:
    log.warning(
        "%s is not used: it belongs to another user, or others may write into it. Delete it, or set XDG_CACHE_HOME.", folder
    )
