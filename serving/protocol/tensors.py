"""Tensors of the v2 protocol as bytes, as JSON values, and as numpy arrays.

Every refusal is an InvalidRequest that names the tensor, what came and what is right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.dtypes import BYTES, NUMPY_DTYPES
from serving.engines.base import Array
from serving.errors import InvalidRequest

_LENGTH_BYTES = 4  # BYTES elements are preceded by their length, little-endian
MAX_AXES = 32  # numpy stops at 64
_MAX_ELEMENTS = 2**48  # more than any memory holds, and far from the overflows of 64 bits
LONG_VALUES = 1 << 14  # as Python's objects, or strings: to convert more takes milliseconds
_PIECE_VALUES = 1 << 16  # converted at once: numpy lets no other thread run meanwhile
_JSON_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}  # numpy kind of the dtype: kinds that JSON values may have


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


def from_values(name: str, datatype: object, shape: object, values: object) -> Array:
    """Return the tensor of JSON `values`, flat or nested, in row-major order. Nothing is rounded or wrapped to fit."""
    dtype, sizes = checked_dtype(name, datatype), checked_shape(name, shape)
    flat = _flat(name, sizes, values)
    check_count(name, sizes, len(flat))
    pieces = [flat[start : start + _PIECE_VALUES] for start in range(0, len(flat), _PIECE_VALUES)] or [flat]
    arrays = [_bytes_array(name, piece) if datatype == BYTES else _number_array(name, datatype, dtype, piece) for piece in pieces]
    return (arrays[0] if len(arrays) == 1 else np.concatenate(arrays)).reshape(sizes)


def check_count(name: str, sizes: tuple[int, ...], count: int) -> None:
    """Raise InvalidRequest unless a tensor of these `sizes` has `count` values."""
    if count != math.prod(sizes):
        raise InvalidRequest(f"Tensor {name!r} of shape {list(sizes)} takes {math.prod(sizes)} values, but {count} were sent.")


def to_values(name: str, array: Array) -> list[Any]:
    """Return the elements of `array` as a flat list for JSON. Raises InvalidRequest for BYTES that are not UTF-8."""
    flat: list[Any] = array.ravel().tolist()
    if array.dtype != np.object_:
        return flat
    try:
        return [element.decode() for element in flat]
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


def _flat(name: str, sizes: tuple[int, ...], values: object) -> list[Any]:
    """Return what is in the lists `values`, nested no deeper than there are axes; it stops where there is more than the tensor takes."""
    if not isinstance(values, list):
        return [values]
    if list not in map(type, values):
        return values
    flat: list[Any] = []
    _gather(name, sizes, values, max(1, len(sizes)), flat)
    return flat


def _gather(name: str, sizes: tuple[int, ...], values: list[Any], levels: int, flat: list[Any]) -> None:
    """Add to `flat` what is in `values`, lists of at most `levels` levels, this one included."""
    if levels == 0:
        raise InvalidRequest(f"Tensor {name!r} of shape {list(sizes)} has values in lists nested deeper than its axes.")
    if list not in map(type, values):
        flat.extend(values)
        return
    limit = math.prod(sizes)
    for value in values:
        if type(value) is list:
            _gather(name, sizes, value, levels - 1, flat)
        else:
            flat.append(value)
        if len(flat) > limit:
            raise InvalidRequest(f"Tensor {name!r} of shape {list(sizes)} takes {limit} values, but more were sent.")


def _number_array(name: str, datatype: object, dtype: np.dtype[np.generic], flat: list[Any]) -> Array:
    wrong = InvalidRequest(f"Tensor {name!r} has values that are not {datatype}.")
    try:
        found = np.array(flat) if flat else np.empty(0, dtype)
        # Integers beyond 64 bits signed come out as floats beside others: only exact ones survive `np.array(flat, dtype)`.
        mixed = dtype.kind == "u" and all(type(value) is int for value in flat)
        if found.dtype.kind not in _JSON_KINDS[dtype.kind] and not mixed:
            raise wrong
        with np.errstate(over="raise"):
            return np.array(flat, dtype)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise wrong from error


def _bytes_array(name: str, flat: list[Any]) -> NDArray[np.object_]:
    if not all(isinstance(value, str | bytes) for value in flat):
        raise InvalidRequest(f"Tensor {name!r} is BYTES; its values are strings.")
    try:
        return _objects([value.encode() if isinstance(value, str) else value for value in flat])
    except UnicodeEncodeError as error:  # JSON can escape half of a surrogate pair
        raise InvalidRequest(f"Tensor {name!r} has strings that are not Unicode text.") from error


def _objects(elements: list[bytes]) -> NDArray[np.object_]:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array
