"""Counts what a user has to write: lines that are neither empty, nor comment, nor docstring."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterable
from pathlib import Path

_EMPTY = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


def count_lines(files: Iterable[Path]) -> int:
    """Return the lines of code of `files`: Python as described above, of anything else the lines that are not empty."""
    return sum(_count(file.name, file.read_text(encoding="utf-8")) for file in files)


def _count(name: str, text: str) -> int:
    if not name.endswith(".py"):
        return sum(bool(line.strip()) for line in text.splitlines())
    lines: set[int] = set()
    begins = True  # of a statement
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in _EMPTY:
            begins = begins or token.type == tokenize.NEWLINE
        else:
            is_docstring = begins and token.type == tokenize.STRING
            if not is_docstring:
                lines.update(range(token.start[0], token.end[0] + 1))
            begins = False
    return len(lines)
