"""JSON in files of the cache: whatever is in them, nothing fails for it."""

from __future__ import annotations

import json
from pathlib import Path

_MOST_BYTES = 16_000_000


def read_bounded(file: Path) -> bytes:
    """Return the content of `file`. Raises OSError, and ValueError where it is longer than any that we write."""
    with file.open("rb") as stream:
        data = stream.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("too long")
    return data


def parse(data: bytes) -> object:
    """Return what `data` says. Raises ValueError for everything that is wrong with it, nesting too deep for the parser included."""
    try:
        value: object = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return value
