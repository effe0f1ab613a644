"""Text in figures: what may stand there, and how much room it takes. Widths are estimated: the viewer's font is not known."""

from __future__ import annotations

from unicodedata import east_asian_width

TIMES, DASH, ELLIPSIS = "\N{MULTIPLICATION SIGN}", "\N{EN DASH}", "\N{HORIZONTAL ELLIPSIS}"
# Widths of characters in DejaVu Sans, a wide font, as shares of its size.
_EM, _CAPITAL_EM, _FULL_EM = 0.56, 0.72, 1.0
_BOLD = 1.13


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return about how wide `text` is in a font of `size`, in the same unit."""
    return size * sum(map(_character_width, text)) * (_BOLD if bold else 1)


def _character_width(character: str) -> float:
    if east_asian_width(character) in "WF":
        return _FULL_EM
    return _CAPITAL_EM if character.isupper() or character in f"mw%{TIMES}{DASH}{ELLIPSIS}" else _EM


def characters(width: float, size: float) -> int:
    """Return about how many characters of a font of `size` fit into `width`."""
    return int(width / (_EM * size))


def shorten(text: str, limit: int) -> str:
    """Return `text`, or its beginning and end with an ellipsis between them, in at most `limit` characters (at least 1).

    What cannot be printed becomes a space.
    """
    text = drawable(text)
    if len(text) <= limit:
        return text
    left = limit // 2
    return text[:left] + ELLIPSIS + text[len(text) - (limit - 1 - left) :]


def drawable(text: str) -> str:
    """Return `text` without what an SVG file may not hold."""
    return "".join(character if character.isprintable() else " " for character in text)
