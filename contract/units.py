"""Numbers and words for people: what sentences, tables and pictures have in common."""

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


def human_bytes(count: int) -> str:
    """Return `count` bytes for people (powers of 1000), as "12.5 MB"."""
    return _scaled(count, "B")


def human_macs(count: int) -> str:
    """Return `count` multiply-accumulates for people, as "4.1 GMACs"."""
    return _scaled(count, "MACs")


def recorded_bytes(count: int) -> str:
    """Return `count` bytes as sentences have them that a repository keeps, which are the same in every version: "12.5 MB", "125.0 MB"."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB" if count >= 1e3 else f"{count} B"


def recorded_macs(count: int) -> str:
    """Return `count` multiply-accumulates as such sentences have them: "9,648 MACs", "4.1 MMACs"."""
    return f"{count / 1e9:.2f} GMACs" if count >= 1e9 else f"{count / 1e6:.1f} MMACs" if count >= 1e6 else f"{count:,} MACs"


def human_count(count: int) -> str:
    """Return `count` for people where its unit stands above it, as "4.1 G"."""
    return _scaled(count, "").rstrip()


def short_count(count: float) -> str:
    """Return a count in two or three digits: 850, 75 k, 4.5 M."""
    for prefix in ("", " k", " M", " G"):
        if count < 999.5:
            digits = 1 if prefix and count < 9.95 else 0
            return f"{count:.{digits}f}{prefix}"
        count /= 1000
    return f"{count:.1f} T"


def percent(share: float, digits: int = 1) -> str:
    """Return a share, an accuracy, or a difference of two, in per cent, without the sign: 0.123 as "12.3"."""
    return f"{100 * share:.{digits}f}"


def quoted(value: object) -> str:
    """Return `value`, which somebody else sent, as Python writes it, shortened where it is long: it costs no more than what is shown."""
    return _repr.repr(value)


def listed(names: Collection[str]) -> str:
    """Return `names` with commas, or the first of them and how many there are more."""
    shown = ", ".join(islice(names, _LISTED))
    return f"{shown} and {len(names) - _LISTED} more" if len(names) > _LISTED else shown or "none"


def _scaled(count: float, unit: str) -> str:
    prefix = ""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(count) < 1000 or prefix == "T":
            break
        count /= 1000
    digits = 0 if not prefix or abs(count) >= 100 else 1
    return f"{count:.{digits}f} {prefix}{unit}"
