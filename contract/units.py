"""Words for the sentences that people read."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from reprlib import Repr

_LISTED = 16  # names in a sentence
_LARGEST = 1000  # characters of what somebody else wrote; a server that is none may send any number
_repr = Repr()
_repr.maxstring = _repr.maxother = 120
_repr.maxlist = _repr.maxdict = 3
_repr.maxlevel = 1


def printable(text: str) -> str:
    r"""Return `text` on one line that a terminal shows as it is: what is no printable character as \x1b, and not without end."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[: _LARGEST + 1])
    return shown if len(text) <= _LARGEST else f"{shown[:_LARGEST]}..."


def size_text(size: int) -> str:
    """Return an amount of memory as "12.5 MB", or in bytes where it is below 0.1 MB."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"


def quoted(value: object) -> str:
    """Return `value`, which somebody else sent, as Python writes it, shortened where it is long: it costs no more than what is shown."""
    return _repr.repr(value)


def listed(names: Collection[str]) -> str:
    """Return `names` with commas, or the first of them and how many there are more."""
    shown = ", ".join(islice(names, _LISTED))
    return f"{shown} and {len(names) - _LISTED} more" if len(names) > _LISTED else shown or "none"
