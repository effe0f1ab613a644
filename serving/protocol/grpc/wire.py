"""The wire format of protobuf, read field by field without making anything of it."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, I64, LENGTH, I32 = 0, 1, 2, 5
_SIZES = {I64: 8, I32: 4}
_VARINT_BYTES = 10
_Field = tuple[int, int, int, int]
"""Its number, its wire type, and where its value begins and ends."""


class Malformed(Exception):
    """The bytes are no message."""


def fields(data: bytes, position: int, end: int) -> Iterator[_Field]:
    """Yield the fields of the message that is `data[position:end]`. Raises Malformed, also for groups, which no client sends any more."""
    while position < end:
        tag = data[position]
        position += 1
        if tag > 127:
            tag, position = _varint(data, position - 1, end)
        wire = tag & 7
        if wire == LENGTH:
            size, position = _varint(data, position, end)
            stop = position + size
        elif wire == VARINT:
            stop = _varint(data, position, end)[1]
        elif wire in _SIZES:
            stop = position + _SIZES[wire]
        else:
            raise Malformed
        if stop > end or tag < 8:
            raise Malformed
        yield tag >> 3, wire, position, stop
        position = stop


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return the number that begins at `position`, and where it ends. Raises Malformed unless it ends before `end`."""
    if position < end and data[position] < 128:  # nearly all are that short
        return data[position], position + 1
    number = shift = 0
    for place in range(position, min(end, position + _VARINT_BYTES)):
        byte = data[place]
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place + 1
        shift += 7
    raise Malformed


def header(number: int, size: int) -> bytes:
    """Return what stands before `size` bytes that are the value of the field `number`, which is below 16."""
    written = bytearray((number << 3 | LENGTH,))
    while size > 127:
        written.append(size & 127 | 128)
        size >>= 7
    written.append(size)
    return bytes(written)
