"""JSON of any length, read and written by pieces.

Python's json holds the interpreter's lock from the first byte to the last, so that in a thread, too, it keeps all others waiting:
12 MB took from half a second to four. Between pieces the others have their turn.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

PIECE_CHARACTERS = 1 << 16  # read at once, in about a millisecond
_PIECE_VALUES = 1 << 13  # written at once
_SPACE = re.compile(r"[ \t\n\r]*")
_CLOSING = {'"': '"', "{": "}"}


def read_long(text: bytes, piece: int = PIECE_CHARACTERS) -> Any:
    """Return what `json.loads` does, in pieces of about `piece` characters. Raises ValueError, RecursionError."""
    return _Reader(text.decode(json.detect_encoding(text), "surrogatepass"), piece).whole()


def write_long(value: Any) -> str:
    """Return what `json.dumps` does without spaces. value: dictionaries, lists of such, and lists of other values of any length."""
    return "".join(_parts(value))


def _parts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for number, (key, entry) in enumerate(value.items()):
            yield f"{',' if number else '{'}{_dumps(key)}:"
            yield from _parts(entry)
        yield "}" if value else "{}"
    elif isinstance(value, list) and len(value) > 0:
        if isinstance(value[0], dict):
            pieces: Iterable[Iterable[str]] = map(_parts, value)
        else:
            starts = range(0, len(value), _PIECE_VALUES)
            pieces = ([_dumps(value[start : start + _PIECE_VALUES])[1:-1]] for start in starts)
        for number, piece in enumerate(pieces):
            yield "," if number else "["
            yield from piece
        yield "]"
    else:
        yield _dumps(value)


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


class _Reader:
    """Reads whole pieces as json does, and only what is longer than a piece by itself, element by element."""

    def __init__(self, text: str, piece: int) -> None:
        self._text = text
        self._piece = piece
        self._decode = json.JSONDecoder().raw_decode

    def whole(self) -> Any:
        value, end = self._value(self._skip(0))
        if self._skip(end) != len(self._text):
            raise self._error("Extra data", end)
        return value

    def _value(self, start: int) -> tuple[Any, int]:
        """Return the value that begins at `start`, and where it ends."""
        opening = self._text[start : start + 1]
        if opening == "[":
            return self._list(start + 1)
        if opening == "{":
            return self._object(start + 1)
        return self._decode(self._text, start)

    def _list(self, start: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        start = self._skip(start)
        if self._text.startswith("]", start):
            return values, start + 1
        while True:
            start = self._skip(self._elements(start, values))
            if self._text.startswith("]", start):
                return values, start + 1
            start = self._next(start)

    def _elements(self, start: int, values: list[Any]) -> int:
        """Add one or more elements of a list to `values`, the first of which begins at `start`; return where the last ends."""
        window = self._text[start : start + self._piece]
        cut = _likely_cut(window)
        # What parses as a whole list, ends between two elements: a cut within a list, an object or a string does not parse.
        if cut > 0:
            with contextlib.suppress(ValueError):
                values.extend(json.loads(f"[{window[:cut]}]"))
                return start + cut
        end = self._small(window, values)
        if end > 0:
            return start + end
        value, end = self._value(start)
        values.append(value)
        return end

    def _small(self, window: str, values: list[Any]) -> int:
        """Add to `values` the elements that lie wholly in `window`; return where the last ends, 0 if there is none."""
        last = start = 0
        while True:
            try:
                value, end = self._decode(window, start)
            except ValueError:
                return last  # it is wrong, or goes on after the window; who reads it by itself finds out
            after = _end_of_space(window, end)
            if window[after : after + 1] not in (",", "]"):
                return last  # it may go on: 12 is the beginning of 123, and of 12.5
            values.append(value)
            last = end
            if window[after] != ",":
                return last
            start = _end_of_space(window, after + 1)

    def _object(self, start: int) -> tuple[dict[str, Any], int]:
        values: dict[str, Any] = {}
        start = self._skip(start)
        if self._text.startswith("}", start):
            return values, start + 1
        while True:
            if not self._text.startswith('"', start):
                raise self._error("Expecting a property name", start)
            key, end = self._decode(self._text, start)
            colon = self._skip(end)
            if not self._text.startswith(":", colon):
                raise self._error("Expecting ':'", colon)
            values[key], end = self._value(self._skip(colon + 1))
            start = self._skip(end)
            if self._text.startswith("}", start):
                return values, start + 1
            start = self._next(start)

    def _next(self, comma: int) -> int:
        if not self._text.startswith(",", comma):
            raise self._error("Expecting ','", comma)
        return self._skip(comma + 1)

    def _skip(self, start: int) -> int:
        return _end_of_space(self._text, start)

    def _error(self, what: str, where: int) -> ValueError:
        return json.JSONDecodeError(what, self._text, where)


def _likely_cut(window: str) -> int:
    """Return where one of the elements ends with which `window` begins, as far on as possible and if all are like the first; or 0."""
    levels = len(window) - len(window.lstrip("["))
    end = window.find("]" * (levels + 1))
    if end >= 0:
        return end + levels  # that of the whole list
    closing = "]" * levels or _CLOSING.get(window[:1], "")
    last = window.rfind(f"{closing},")
    return last + len(closing) if last >= 0 else 0


def _end_of_space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start
