"""Images in files and folders: which files there are, and their bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

_MAX_BYTES = 32 * 1024 * 1024  # of an image's file: what a server takes


def files_in(folder: str | Path) -> list[Path]:
    """Return the files in `folder` and the folders in it, by their names; hidden ones and links to folders are left out.

    Raises NotAnImage where it cannot be read, or has none.
    """
    from serving.errors import NotAnImage

    def refuse(error: OSError) -> None:
        raise NotAnImage(f"{error.filename} cannot be read: {error.strerror}.") from error

    found: list[Path] = []
    for where, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where, name) for name in names if not name.startswith(".") and Path(where, name).is_file()]
    if not found:
        raise NotAnImage(f"{folder} has no files; name a folder with images.")
    return sorted(found, key=lambda file: file.relative_to(folder).parts)


def with_folders(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Yield `paths`, with the files of a folder in place of it. Raises NotAnImage."""
    for path in paths:
        if Path(path).is_dir():
            yield from files_in(path)
        else:
            yield Path(path)


def read_image_file(path: str | Path) -> bytes:
    """Return the bytes of the file `path`. Raises NotAnImage where it cannot be read, or is too large for an image."""
    from serving.errors import NotAnImage

    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise NotAnImage(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > _MAX_BYTES:
        raise NotAnImage(f"{path} has more than the limit of {_MAX_BYTES} bytes for an image's file.")
    return data
