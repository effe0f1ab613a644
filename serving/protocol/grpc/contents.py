"""The data of tensors, taken out of long messages before protobuf decodes the rest.

Protobuf copies raw contents, and makes of each number in a list as many as 24 bytes, and Python objects of them after that. Here raw
contents stay where they are, and numbers become arrays by pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from serving.errors import Undecodable
from serving.protocol.grpc.cost import QUICK_BYTES
from serving.protocol.grpc.wire import I32, I64, LENGTH, VARINT, Malformed, fields, header

_LONGEST = 10  # bytes of a varint
_PIECE_BYTES = 1 << 14  # decoded at once, with some 40 times the memory meanwhile
_pb: Any = service_pb2
_REQUEST = _pb.ModelInferRequest.DESCRIPTOR.fields_by_name
_INPUTS, _RAW = _REQUEST["inputs"].number, _REQUEST["raw_input_contents"].number
_CONTENTS = _pb.ModelInferRequest.InferInputTensor.DESCRIPTOR.fields_by_name["contents"].number
_STRINGS = _pb.InferTensorContents.DESCRIPTOR.fields_by_name["bytes_contents"].number
_FIXED: dict[str, np.dtype[Any]] = {"fp32_contents": np.dtype("<f4"), "fp64_contents": np.dtype("<f8")}
# Protobuf's own arithmetic: what is too long for a type loses its upper bits.
_VARINTS: dict[str, np.dtype[Any]] = {
    "bool_contents": np.dtype(np.bool_),
    "int_contents": np.dtype(np.int32),
    "int64_contents": np.dtype(np.int64),
    "uint_contents": np.dtype(np.uint32),
    "uint64_contents": np.dtype(np.uint64),
}
DTYPES = {**_VARINTS, **_FIXED}
"""Of the numbers in the fields of typed contents."""
_WIRES = {**dict.fromkeys(_VARINTS, VARINT), "fp32_contents": I32, "fp64_contents": I64}  # of one number that is not packed
_NAMES = {field.number: field.name for field in _pb.InferTensorContents.DESCRIPTOR.fields if field.name in DTYPES}
_Span = tuple[int, int]
"""Where some bytes of a message begin and end."""


@dataclass(frozen=True)
class Contents:
    """The typed contents of an input: of each of its fields, by name, where in `data` its values are; of strings, where all fields are."""

    data: bytes
    spans: Mapping[str, Sequence[_Span]]

    def strings(self) -> list[bytes]:
        """Return the values of bytes_contents."""
        found = (field for span in self.spans["bytes_contents"] for field in fields(self.data, *span))
        return [self.data[start:stop] for number, wire, start, stop in found if (number, wire) == (_STRINGS, LENGTH)]

    def count(self, field: str) -> int:
        """Return how many numbers a field has."""
        if field in _FIXED:
            return sum(stop - start for start, stop in self.spans[field]) // _FIXED[field].itemsize
        return sum(int(np.count_nonzero(piece < 128)) for piece in self._pieces(field))

    def numbers(self, field: str, check: Callable[[], None]) -> Iterator[NDArray[Any]]:
        """Yield the numbers of a field in order, in pieces; `check` is called before each. Raises Undecodable."""
        for piece in self._pieces(field):
            check()
            yield piece.view(_FIXED[field]) if field in _FIXED else _varints(piece).astype(_VARINTS[field])

    def _pieces(self, field: str) -> Iterator[NDArray[np.uint8]]:
        for start, stop in self.spans[field]:
            while start < stop:
                piece = np.frombuffer(self.data, np.uint8, min(stop - start, _PIECE_BYTES), start)
                if field in _VARINTS:
                    piece = _whole(piece)
                elif len(piece) % _FIXED[field].itemsize:
                    raise Undecodable
                yield piece
                start += len(piece)


class Tensors(NamedTuple):
    """The data that was taken out of a message: raw contents in order, and typed contents by the place of their input."""

    raw: Sequence[memoryview | bytes]
    contents: Mapping[int, Contents]


def take_apart(data: bytes, long_bytes: int = QUICK_BYTES) -> tuple[bytes, Tensors]:
    """Return a ModelInferRequest without its raw contents and those of inputs of more than `long_bytes`, and these. Raises Undecodable."""
    view = memoryview(data)
    kept: list[bytes | memoryview] = []
    raw: list[memoryview] = []
    contents: dict[int, Contents] = {}
    inputs = begin = end = 0  # what is kept next is from `begin` on; `end` is that of the last field
    try:
        for number, wire, start, stop in fields(data, 0, len(data)):
            is_input = wire == LENGTH and number == _INPUTS
            if is_input and stop - start > long_bytes:
                tensor, spans = _without_contents(data, start, stop)
                kept += (view[begin:end], header(_INPUTS, len(tensor)), tensor)
                contents.update({inputs: Contents(data, spans)} if spans else {})
                begin = stop
            elif wire == LENGTH and number == _RAW:
                raw.append(view[start:stop])
                kept.append(view[begin:end])
                begin = stop
            inputs += is_input
            end = stop
    except Malformed:
        raise Undecodable from None
    return b"".join((*kept, view[begin:])), Tensors(raw, contents)


def _without_contents(data: bytes, position: int, end: int) -> tuple[bytes, Mapping[str, list[_Span]]]:
    kept: list[bytes] = []
    spans: dict[str, list[_Span]] = {}
    for number, wire, start, stop in fields(data, position, end):
        if wire == LENGTH and number == _CONTENTS:
            _note_contents(data, start, stop, spans)
        else:
            kept.append(data[position:stop])
        position = stop
    return b"".join(kept), spans


def _note_contents(data: bytes, position: int, end: int, spans: dict[str, list[_Span]]) -> None:
    """Note where the values are. As protobuf does it, lists are taken packed and not, and what is neither is ignored."""
    has_strings = False
    for number, wire, start, stop in fields(data, position, end):
        if wire == LENGTH and number == _STRINGS:
            has_strings = True
        elif (name := _NAMES.get(number)) and wire in (LENGTH, _WIRES[name]) and start < stop:
            spans.setdefault(name, []).append((start, stop))
    if has_strings:
        spans.setdefault("bytes_contents", []).append((position, end))


def _whole(piece: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `piece` up to the end of its last varint."""
    ends = np.flatnonzero(piece[-_LONGEST:] < 128)
    if not len(ends):
        raise Undecodable
    return piece[: max(len(piece) - _LONGEST, 0) + int(ends[-1]) + 1]


def _varints(piece: NDArray[np.uint8]) -> NDArray[np.uint64]:
    ends = np.flatnonzero(piece < 128)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > _LONGEST:
        raise Undecodable
    values = (piece[starts] & 127).astype(np.uint64)
    for place in range(1, longest):
        more = np.flatnonzero(lengths > place)
        values[more] |= (piece[starts[more] + place] & np.uint8(127)).astype(np.uint64) << np.uint64(7 * place)
    return values
