"""JSON in files of the cache: whatever is in them, nothing fails for it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from contract.private_folder import is_private, make_private_folder

_MOST_BYTES = 16_000_000


def read_bounded(file: Path) -> bytes:
    """Return the content of `file`. Raises OSError, and ValueError where it is longer than any that we write."""
    with file.open("rb") as stream:
        data = stream.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("too long")
    return data


def read_private(file: Path | None) -> bytes:
    """Return the content of `file`; b"" where it cannot be read, is longer than any that we write, or others could have written it."""
    with suppress(OSError, ValueError):
        return read_bounded(file) if file is not None and is_private(file.parent) else b""
    return b""


def append_private(file: Path | None, data: bytes, most_bytes: int) -> None:
    """Add lines to `file` in one write, so that those of several processes do not mix; None, or a failure: they are kept nowhere.

    A file that is longer than `most_bytes` is begun anew.
    """
    with suppress(OSError):
        if file is None or not make_private_folder(file.parent):
            return
        is_too_long = file.exists() and file.stat().st_size > most_bytes
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | (os.O_TRUNC if is_too_long else 0), 0o600)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


def parse(data: bytes) -> object:
    """Return what `data` says. Raises ValueError for everything that is wrong with it, nesting too deep for the parser included."""
    try:
        value: object = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return value
