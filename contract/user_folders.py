"""The folders that belong to whoever runs this process, who may have none: a container's user often has no home."""

from __future__ import annotations

import os
from pathlib import Path


def home_folder() -> Path | None:
    """Return the user's home; None where neither HOME nor the list of users names one."""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return home if home.is_absolute() else None


def cache_folder() -> Path | None:
    """Return espalier's part of the user's cache folder: below XDG_CACHE_HOME, or ~/.cache; None where there is neither.

    A relative XDG_CACHE_HOME counts as none, as its specification says.
    """
    given, home = Path(os.environ.get("XDG_CACHE_HOME", "")), home_folder()
    base = given if given.is_absolute() else home and home / ".cache"
    return base and base / "espalier"
