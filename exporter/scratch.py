"""Where the exporter works: weights of networks that are not written yet."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.errors import NoScratch


@contextmanager
def scratch_folder(repository: Path) -> Iterator[Path]:
    """Yield a folder that vanishes in the end: among the temporary files, or where there is no place for those, beside `repository`.

    Raises NoScratch where neither can be written.
    """
    try:
        place = Path(tempfile.gettempdir())
    except FileNotFoundError:
        place = _nearest_folder(repository)
    if not os.access(place, os.W_OK):
        raise NoScratch(place)
    with tempfile.TemporaryDirectory(prefix=".espalier-", dir=place) as folder:
        yield Path(folder)


def _nearest_folder(repository: Path) -> Path:
    """Return the folder that `repository` is in, or is to be in: what is above it is made with it."""
    return next(folder for folder in repository.absolute().parents if folder.is_dir())
