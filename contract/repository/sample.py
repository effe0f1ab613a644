"""The input that networks are tried with: made of integers alone, so that every machine and every version makes the same bytes.

An export records what a task's whole network answers to it, and a server compares its own answer before it serves the task. Whatever
changes these bytes needs another number in `contract.repository.record.SAMPLE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from contract.dtypes import NUMPY_DTYPES
from contract.repository.model import TensorSpec

_GOLDEN = 0x9E3779B97F4A7C15  # splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)
_MASK = (1 << 64) - 1
_PATCHES = 8  # along each axis
_ONE = 1 << 14  # 1.0 as a fixed-point number


def sample_inputs(specs: Sequence[TensorSpec], rows: int = 1) -> dict[str, NDArray[np.generic]]:
    """Return the sample for the inputs of a task, none of whose sizes is free, by name."""
    return {spec.name: sample_rows(spec, rows, seed) for seed, spec in enumerate(specs)}


def sample_rows(spec: TensorSpec, rows: int = 1, seed: int = 0) -> NDArray[np.generic]:
    """Return input of shape (rows, *spec.shape), which has no free size: coarse patches and noise, each row of its own brightness and
    contrast, so that outputs differ.

    Numbers are within -3.5 and 3.5, UINT8 within all of its range; other integers are 0 or 1, which every table that they may index has.
    Row number r is the same however many rows are asked for. seed: number of the input, for networks with several.
    """
    values = np.stack([_row(spec.shape, _word(_word(seed) + row)) for row in range(rows)])
    dtype = NUMPY_DTYPES.get(spec.dtype, np.dtype(np.float32))
    if spec.dtype == "UINT8":
        return np.asarray(np.clip((values >> 8) + 128, 0, 255), np.uint8)
    if dtype.kind in "iub":
        return (values & 1).astype(dtype)
    return (values / _ONE).astype(dtype)


def _row(shape: tuple[int, ...], key: int) -> NDArray[np.int64]:
    """Return fixed-point numbers of `shape`, within -3.5 and 3.5."""
    noise, patches = _field(np.arange(prod(shape)), key), _field(_patch_of(shape).reshape(-1), key + 1)
    contrast, brightness = (int(number) for number in _field(np.arange(2), key + 2))
    mixed = (noise + 3 * patches) // 4 * (3 * _ONE + contrast) // (4 * _ONE)  # contrast: a fourth up to 1.25
    return (mixed + brightness // 2).reshape(shape)


def _patch_of(shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return, for each element of `shape`, the number of the patch that it is in."""
    numbers = np.zeros(shape, np.int64)
    for axis, size in enumerate(shape):
        along = np.arange(size) * min(size, _PATCHES) // size
        numbers = numbers * _PATCHES + along.reshape(-1, *[1] * (len(shape) - axis - 1))
    return numbers


def _field(numbers: NDArray[np.int64], key: int) -> NDArray[np.int64]:
    """Return a hash of each of `numbers`, an array of one axis, from -2.0 up to 2.0 in fixed point. key: equal keys, equal hashes."""
    words = numbers.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(_word(key))
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (words >> np.uint64(48)).astype(np.int64) - 2 * _ONE


def _word(number: int) -> int:
    """Return the hash of one number, from 0 up to 2**64."""
    word = (number + 1) * _GOLDEN & _MASK
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _MASK
    return word ^ (word >> 31)
