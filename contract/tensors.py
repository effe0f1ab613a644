"""Tensors of the v2 protocol as bytes, as JSON values, and as numpy arrays.

Every refusal is an InvalidRequest that names the tensor, what came and what is right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from contract.dtypes import BYTES, NUMPY_DTYPES, Array
from contract.errors import InvalidRequest, TooMuch

_LENGTH_BYTES = 4  # BYTES elements are preceded by their length, little-endian
MAX_AXES = 32  # numpy stops at 64
_MAX_ELEMENTS = 2**48  # more than any memory holds, and far from the overflows of 64 bits
LONG_VALUES = 1 << 14  # as Python's objects, or strings: to convert more takes milliseconds
_PIECE_VALUES = 1 << 13  # written at once: Python lets no other thread run meanwhile


def checked_dtype(name: str, datatype: object) -> np.dtype[np.generic]:
    """Return numpy's type for `datatype`."""
    if datatype == "BF16":
        raise InvalidRequest(f"Tensor {name!r} is BF16, which this server does not take; send FP32.")
    if not isinstance(datatype, str) or datatype not in NUMPY_DTYPES:
        raise InvalidRequest(f"Tensor {name!r} has datatype {datatype!r}; known are: {', '.join(NUMPY_DTYPES)}.")
    return NUMPY_DTYPES[datatype]


def checked_shape(name: str, shape: object) -> tuple[int, ...]:
    """Return `shape` as a tuple of non-negative integers, few enough for numpy even where one of them is 0."""
    if not isinstance(shape, Sequence) or not all(type(size) is int and size >= 0 for size in shape):
        raise InvalidRequest(f"Tensor {name!r} has shape {shape!r}; a shape is a list of non-negative integers.")
    if len(shape) > MAX_AXES or math.prod(size or 1 for size in shape) > _MAX_ELEMENTS:
        raise InvalidRequest(f"Tensor {name!r} has a shape of more than {MAX_AXES} axes or more elements than any memory holds.")
    return tuple(shape)


def from_bytes(name: str, datatype: object, shape: object, data: memoryview) -> Array:
    """Return the tensor whose row-major little-endian elements are `data`; a view of it, not a copy, unless BYTES."""
    dtype, sizes = checked_dtype(name, datatype), checked_shape(name, shape)
    if datatype == BYTES:
        return _split_bytes(name, sizes, data)
    expected = math.prod(sizes) * dtype.itemsize
    if len(data) != expected:
        raise InvalidRequest(
            f"Tensor {name!r} ({datatype}, shape {list(sizes)}) takes {expected} bytes, but {len(data)} were sent."
        )
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(sizes)


def to_bytes(array: Array) -> bytes:
    """Return the row-major little-endian elements of `array`; BYTES elements with their lengths."""
    if array.dtype != np.object_:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    elements: list[bytes] = array.ravel().tolist()
    return b"".join(len(element).to_bytes(_LENGTH_BYTES, "little") + element for element in elements)


def to_buffer(array: Array) -> bytes | NDArray[np.uint8]:
    """Return what `to_bytes` returns, without a copy where `array` is that already."""
    if array.dtype == np.object_:
        return to_bytes(array)
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    return little.reshape(-1).view(np.uint8)


def from_numbers(name: str, datatype: str, shape: object, count: int, pieces: Iterable[NDArray[Any]]) -> Array:
    """Return the tensor of `count` values in row-major order, which come in pieces and as any numbers. Nothing is wrapped to fit."""
    dtype, sizes = checked_dtype(name, datatype), checked_shape(name, shape)
    check_count(name, sizes, count)
    numbers = np.empty(count, dtype)
    start = 0
    for piece in pieces:
        place = numbers[start : start + len(piece)]
        place[...] = piece.astype(dtype, copy=False)
        if dtype.kind in "iu" and not np.array_equal(place, piece):
            raise InvalidRequest(f"Tensor {name!r} has values that are not {datatype}.")
        start += len(piece)
    return numbers.reshape(sizes)


def from_strings(name: str, shape: object, values: Sequence[bytes]) -> Array:
    """Return the BYTES tensor of `values` in row-major order."""
    sizes = checked_shape(name, shape)
    check_count(name, sizes, len(values))
    return _objects(values).reshape(sizes)


def check_count(name: str, sizes: tuple[int, ...], count: int) -> None:
    """Raise InvalidRequest unless a tensor of these `sizes` has `count` values."""
    if count != math.prod(sizes):
        raise InvalidRequest(f"Tensor {name!r} of shape {list(sizes)} takes {math.prod(sizes)} values, but {count} were sent.")


def check_strings(count: int, most: int) -> None:
    """Raise TooMuch when the tensors of a request have more strings than the `most` that they may have together."""
    if count > most:
        raise TooMuch("strings", f"The request has {count} strings; send at most {most} at once.")


def values_text(name: str, array: Array, check: Callable[[], None] = lambda: None) -> Iterator[bytes]:
    """Yield the elements of `array` as JSON, flat and without the brackets around them, in pieces; `check` is called before each.

    Raises InvalidRequest for BYTES that are not UTF-8.
    """
    flat = array.ravel()
    for start in range(0, flat.size, _PIECE_VALUES):
        check()
        piece = flat[start : start + _PIECE_VALUES]
        if start:
            yield b","
        if piece.dtype.kind == "f" and not np.isfinite(piece).all():
            yield json.dumps(piece.tolist(), separators=(",", ":"))[
                1:-1
            ].encode()  # JSON has no words for them, Python's json has
        else:
            yield msgspec.json.encode(_texts(name, piece) if piece.dtype == np.object_ else piece.tolist())[1:-1]


def _texts(name: str, elements: Array) -> list[str]:
    try:
        return [element.decode() for element in elements]
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"Output {name!r} is not UTF-8 text; request it as binary data.") from error


def _split_bytes(name: str, sizes: tuple[int, ...], data: memoryview) -> NDArray[np.object_]:
    elements: list[bytes] = []
    start = 0
    expected = math.prod(sizes)
    while start < len(data):
        if len(elements) == expected:
            raise InvalidRequest(f"Tensor {name!r} of shape {list(sizes)} takes {expected} elements, but more were sent.")
        body = start + _LENGTH_BYTES
        end = body + int.from_bytes(data[start:body], "little")
        if body > len(data) or end > len(data):
            raise InvalidRequest(f"Tensor {name!r} (BYTES) ends in the middle of an element.")
        elements.append(bytes(data[body:end]))
        start = end
    if len(elements) != expected:
        raise InvalidRequest(f"Tensor {name!r} of shape {list(sizes)} takes {expected} elements, but {len(elements)} were sent.")
    return _objects(elements).reshape(sizes)


def _objects(elements: Sequence[bytes]) -> NDArray[np.object_]:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array
