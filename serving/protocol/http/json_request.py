"""Reads the JSON of an inference request at a cost in proportion to its bytes, whatever is in it.

msgspec goes through the text once, checks it and keeps the values of tensors as text. They become numbers by pieces, each at once an array
of the tensor's own type: as Python's objects, `1,` would take 16 times its text, and `[],` thirty times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from contract.dtypes import BYTES, Array
from contract.errors import InvalidRequest, TooMuch
from contract.tensors import check_count, checked_dtype, checked_shape
from serving.protocol.message_limits import USUAL, MessageLimits

_LITTLE_BYTES = 1 << 12  # as objects, a tenth of a megabyte at most
_PIECE_BYTES = 1 << 16  # converted at once: Python lets no other thread run meanwhile
_SPACE = b" \t\n\r"
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_OUTSIDE = re.compile(rb'(?:[^"]++|' + _STRING.pattern + rb")*+", re.DOTALL)
_NOT_FINITE = re.compile(_STRING.pattern + rb"|-?(?:NaN|Infinity)", re.DOTALL)
# What Python's json writes for numbers that are not finite, in words that JSON has: too large, and a zero that nobody else writes.
_WORDS = {b"NaN": b"-0e9999", b"Infinity": b"1e9999", b"-Infinity": b"-1e9999"}
_EMPTY = msgspec.Raw(b"")


class _Tensor(msgspec.Struct):
    """An input or a requested output, its members as text; what is missing is empty."""

    name: msgspec.Raw = _EMPTY
    datatype: msgspec.Raw = _EMPTY
    shape: msgspec.Raw = _EMPTY
    parameters: msgspec.Raw = _EMPTY
    data: msgspec.Raw = _EMPTY


class _Request(msgspec.Struct):
    id: msgspec.Raw = _EMPTY
    parameters: msgspec.Raw = _EMPTY
    inputs: msgspec.Raw = _EMPTY
    outputs: msgspec.Raw = _EMPTY


class _Parts(msgspec.Struct):
    """A request with its tensors apart, as nearly all can be read in one go; null, too, is absence."""

    id: msgspec.Raw = _EMPTY
    parameters: msgspec.Raw = _EMPTY
    inputs: list[_Tensor] | None = None
    outputs: list[_Tensor] | None = None


_parts = msgspec.json.Decoder(_Parts)
_request = msgspec.json.Decoder(_Request)
_tensors = msgspec.json.Decoder(list[_Tensor])
_strings = msgspec.json.Decoder(list[str])
_numbers: dict[str, Any] = {
    "b": msgspec.json.Decoder(list[bool]),
    "u": msgspec.json.Decoder(list[int]),
    "i": msgspec.json.Decoder(list[int]),
    "f": msgspec.json.Decoder(list[float]),
}


@dataclass(frozen=True)
class JsonValues:
    """The list of a tensor's values, as the text of the request. not_finite: whether words stand in it for numbers that are not finite."""

    text: memoryview
    not_finite: bool = False

    def array(self, name: str, datatype: object, shape: object, check: Callable[[], None] = lambda: None) -> Array:
        """Return the tensor, flat or nested values in row-major order. Nothing is rounded or wrapped to fit.

        check: called between pieces; raises what is to end the work. Raises InvalidRequest.
        """
        dtype, sizes = checked_dtype(name, datatype), checked_shape(name, shape)
        if datatype == BYTES:
            return self._strings(name, sizes, check).reshape(sizes)
        wrong = InvalidRequest(f"Tensor {name!r} has values that are not {datatype}.")
        return self._numbers(name, sizes, dtype, wrong, check).reshape(sizes)

    def _numbers(
        self, name: str, sizes: tuple[int, ...], dtype: np.dtype[np.generic], wrong: InvalidRequest, check: Callable[[], None]
    ) -> Array:
        found = _Measure(name, sizes)
        for piece in _pieces(self.text):
            check()
            if b'"' in piece or b"{" in piece:
                raise wrong
            found.add(piece)
        found.check()
        values = np.empty(prod(sizes), dtype)
        done = 0
        for piece in _pieces(self.text) if values.size else ():
            check()
            try:
                with np.errstate(over="raise"):
                    numbers = np.array(self._decode(piece, dtype.kind), dtype)
            except (ValueError, TypeError, ArithmeticError) as error:
                raise wrong from error
            values[done : done + numbers.size] = numbers
            done += numbers.size
        return values

    def _decode(self, piece: bytes, kind: str) -> list[Any]:
        text = b"[%b]" % piece.translate(None, b"[]").rstrip(_SPACE).removesuffix(b",")
        if not self.not_finite or kind != "f":
            return _numbers[kind].decode(text)  # type: ignore[no-any-return]
        return [float("nan") if word.strip() == _WORDS[b"NaN"] else float(word) for word in text[1:-1].split(b",")]

    def _strings(self, name: str, sizes: tuple[int, ...], check: Callable[[], None]) -> Array:
        wrong = InvalidRequest(f"Tensor {name!r} is BYTES; its values are strings.")
        text = bytes(self.text)
        found = _Measure(name, sizes)
        for piece in _whole_strings(text):
            check()
            piece = _STRING.sub(b"0", piece)
            if piece.translate(None, b"0,[]" + _SPACE):
                raise wrong
            found.add(piece)
        found.check()
        values: NDArray[np.object_] = np.empty(prod(sizes), object)
        done = 0
        for piece in _whole_strings(text):
            check()
            try:
                strings = _strings.decode(b"[%b]" % b",".join(_STRING.findall(piece)))
            except ValueError as error:  # bytes that are no UTF-8, which nobody has looked at before
                raise InvalidRequest(f"Tensor {name!r} has strings that are not Unicode text.") from error
            values[done : done + len(strings)] = [string.encode() for string in strings]
            done += len(strings)
        if done < values.size:
            raise wrong
        return values


class _Measure:
    """Counts values and levels of lists, before any value takes memory."""

    def __init__(self, name: str, sizes: tuple[int, ...]) -> None:
        self._name = name
        self._sizes = sizes
        self._commas = 0
        self._level = 0
        self._some = self._empty = False

    def add(self, piece: bytes) -> None:
        """Count what is in `piece`, which has no strings. Raises InvalidRequest where it is nested deeper than the tensor."""
        self._commas += piece.count(b",")
        self._some = self._some or bool(piece.translate(None, b"[]," + _SPACE))
        if b"[" not in piece and b"]" not in piece:
            return
        self._empty = self._empty or b"[]" in piece.translate(None, _SPACE)
        brackets = np.frombuffer(piece, np.uint8)
        levels = self._level + np.cumsum((brackets == ord("[")).astype(np.int32) - (brackets == ord("]")))
        if levels.max(initial=0) > max(1, len(self._sizes)):
            raise InvalidRequest(
                f"Tensor {self._name!r} of shape {list(self._sizes)} has values in lists nested deeper than its axes."
            )
        self._level = int(levels[-1])

    def check(self) -> None:
        """Raise InvalidRequest unless the tensor takes as many values."""
        if self._some and self._empty:
            raise InvalidRequest(f"Tensor {self._name!r} has empty lists beside its values.")
        check_count(self._name, self._sizes, self._commas + 1 if self._some else 0)


def read_request(text: bytes, limits: MessageLimits = USUAL) -> dict[str, Any]:
    """Return the object that `text` holds, without members that no request has; of each input, `data` as JsonValues.

    null is absence. Raises InvalidRequest when it is no JSON (NaN and Infinity are taken, as Python's json writes them) or no object, or
    has more inputs and outputs, or longer names, shapes and parameters, than any request.
    """
    header = _read_at_once(text) if len(text) <= _LITTLE_BYTES else None
    return _read_in_parts(text, limits) if header is None else header


def _read_at_once(text: bytes) -> dict[str, Any] | None:
    """Return what `text` holds, which is short, if that is an object without tensors' values: most requests in binary begin with one."""
    try:
        request: dict[str, Any] = msgspec.json.decode(text)
        lists = (request.get("inputs") or (), request.get("outputs") or ())
        return None if any("data" in entry for entries in lists for entry in entries) else request
    except (ValueError, RecursionError, AttributeError, TypeError):  # to be told in words
        return None


def _read_in_parts(text: bytes, limits: MessageLimits) -> dict[str, Any]:
    """Do as `read_request`."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    if text.count(b"{") > limits.objects < sum(_STRING.sub(b"", piece).count(b"{") for piece in _whole_strings(text)):
        raise TooMuch(
            "objects", f"The request has more than {limits.objects} objects in its JSON; no model has so many inputs and outputs."
        )
    not_finite = False
    try:
        request = _parts.decode(text)
    except (ValueError, RecursionError):
        request, not_finite = _read_unusual(text, limits)
    header = _members({"id": request.id, "parameters": request.parameters}, "The request", limits)
    for key, tensors in (("inputs", request.inputs), ("outputs", request.outputs)):
        if tensors is not None:
            header[key] = [_entry(tensor, not_finite, limits) for tensor in tensors]
    return header


def _read_unusual(text: bytes, limits: MessageLimits) -> tuple[_Parts, bool]:
    """Return the parts of what has numbers that are not finite, and whether it has; or say what is wrong with it."""
    text, not_finite = _finite(text)
    try:
        request = _request.decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("The request's body is not JSON, an object in UTF-8; see the v2 inference protocol.") from error
    _members({"id": request.id, "parameters": request.parameters}, "The request", limits)  # what is wrong with them is said first
    inputs, outputs = (
        None if _is_absent(raw) else _tensors_of(key, raw)
        for key, raw in (("inputs", request.inputs), ("outputs", request.outputs))
    )
    return _Parts(request.id, request.parameters, inputs, outputs), not_finite


def _finite(text: bytes) -> tuple[bytes, bool]:
    """Return `text` in JSON's own words, and whether it had others."""
    if b"NaN" not in text and b"Infinity" not in text:
        return text, False
    return b"".join(_NOT_FINITE.sub(lambda match: _WORDS.get(match[0], match[0]), piece) for piece in _whole_strings(text)), True


def _tensors_of(key: str, raw: msgspec.Raw) -> list[_Tensor]:
    try:
        return _tensors.decode(raw)
    except msgspec.ValidationError as error:
        what = "whose entries are not all objects" if memoryview(raw)[0] == ord("[") else "that is not a list"
        raise InvalidRequest(f"The request has a {key!r} {what}.") from error


def _entry(tensor: _Tensor, not_finite: bool, limits: MessageLimits) -> dict[str, Any]:
    entry = _members({key: getattr(tensor, key) for key in ("name", "datatype", "shape", "parameters")}, "A tensor", limits)
    if not _is_absent(tensor.data):
        text = memoryview(tensor.data)
        entry["data"] = JsonValues(text, not_finite) if text[0] == ord("[") else None
    return entry


def _members(raws: dict[str, msgspec.Raw], where: str, limits: MessageLimits) -> dict[str, Any]:
    """Return the values of what is there. Raises InvalidRequest where one is too long for what it is."""
    members = {}
    for key, raw in raws.items():
        if _is_absent(raw):
            continue
        if memoryview(raw).nbytes > limits.text_bytes:
            raise TooMuch("names", f"{where} has a {key!r} of more than {limits.text_bytes} bytes; send less.")
        try:
            members[key] = msgspec.json.decode(raw)
        except ValueError as error:
            raise InvalidRequest(f"{where} has a {key!r} that is not JSON.") from error
    return members


def _is_absent(raw: msgspec.Raw) -> bool:
    return raw is _EMPTY or bytes(memoryview(raw)[:5]) == b"null"


def _pieces(text: memoryview) -> Iterator[bytes]:
    """Yield `text` in pieces of about _PIECE_BYTES, each but the last with a comma at its end. Raises InvalidRequest."""
    start = 0
    while start < len(text):
        piece = bytes(text[start : start + _PIECE_BYTES])
        if start + len(piece) < len(text):
            piece = piece[: piece.rfind(b",") + 1]
        if not piece:
            raise TooMuch(
                "values", f"A tensor has a value, or space before one, of more than {_PIECE_BYTES} bytes; no number is so long."
            )
        start += len(piece)
        yield piece


def _whole_strings(text: bytes) -> Iterator[bytes]:
    """Yield `text` in pieces of about _PIECE_BYTES, none of which ends within a string (of text that is no JSON, the last may)."""
    start = 0
    while start < len(text):
        end = _OUTSIDE.match(text, start, start + _PIECE_BYTES).end()  # type: ignore[union-attr]  # it matches nothing, too
        if end == start:  # a long string
            found = _STRING.match(text, start)
            end = found.end() if found else len(text)
        yield text[start:end]
        start = end
