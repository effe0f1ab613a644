"""Words for the sentences that people read."""

from __future__ import annotations

_LARGEST = 1000  # characters of what somebody else wrote; a server that is none may send any number


def printable(text: str) -> str:
    r"""Return `text` on one line that a terminal shows as it is: what is no printable character as \x1b, and not without end."""
    shown = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[: _LARGEST + 1])
    return shown if len(text) <= _LARGEST else f"{shown[:_LARGEST]}..."


def size_text(size: int) -> str:
    """Return an amount of memory as "12.5 MB", or in bytes where it is below 0.1 MB."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"
