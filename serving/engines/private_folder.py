"""Folders for what is run without being looked at: nobody else may write there."""

from __future__ import annotations

import os
from pathlib import Path


def make_private_folder(folder: Path) -> bool:
    """Make `folder`; say whether it is one that only this user (or root) can fill. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not hasattr(os, "geteuid"):
        return True
    status = folder.stat()
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & 0o022
