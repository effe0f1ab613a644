"""Tensors that stay on the device that computed them, until somebody wants them on the host."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeGuard, cast

import numpy as np

from contract.dtypes import NUMPY_DTYPES, RUNTIME_DTYPES, Array

if TYPE_CHECKING:
    import onnxruntime as ort

# ONNX Runtime starts every tensor of its own at such an address, and its kernels and TensorRT's may count on it.
_ALIGNMENT_BYTES = 256


@dataclass(frozen=True)
class Device:
    """A place for tensors in ONNX Runtime's words. kind: as "cuda", "cpu"; number: from 0."""

    kind: str
    number: int = 0


class _DeviceTensor:
    """What a session gave, on its device. session: kept, because the memory is from its allocator."""

    def __init__(self, value: ort.OrtValue, session: ort.InferenceSession) -> None:
        self.value = value
        self.shape = tuple(value.shape())
        self.dtype = NUMPY_DTYPES[RUNTIME_DTYPES[value.data_type()]]
        self._session = session
        self._host: Array | None = None

    @property
    def is_on_host(self) -> bool:
        """Return whether it has been copied to the host."""
        return self._host is not None

    def on_host(self) -> Array:
        """Return the whole of it as an array on the host, copied once. From several threads at once: at worst copied twice."""
        if self._host is None:
            self._host = cast(Array, self.value.numpy())
        return self._host


class DeviceRows:
    """Rows `start` to `stop` of a tensor. An array of shape (rows, ...) to whoever takes rows of it or gives it to numpy.

    To numpy it is a view of the host's copy of the whole tensor, which is made when numpy first asks.
    """

    __slots__ = ("start", "stop", "tensor")

    def __init__(self, tensor: _DeviceTensor, start: int, stop: int) -> None:
        self.tensor = tensor
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, rows: slice) -> DeviceRows:
        start, stop, _ = rows.indices(len(self))
        return DeviceRows(self.tensor, self.start + start, self.start + stop)

    def __array__(self, dtype: np.dtype[np.generic] | None = None, copy: bool | None = None) -> Array:
        return np.array(self.tensor.on_host()[self.start : self.stop], dtype, copy=copy)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (rows, ...)."""
        return (len(self), *self.tensor.shape[1:])

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Return numpy's word for the type of the elements."""
        return self.tensor.dtype

    def bind(self, binding: ort.IOBinding, name: str, device: Device) -> bool:
        """Make these rows the input `name` of a run without copying them; return False where their address does not allow it."""
        if len(self) == self.tensor.shape[0]:
            binding.bind_ortvalue_input(name, self.tensor.value)
            return True
        offset = self.start * prod(self.tensor.shape[1:]) * self.dtype.itemsize
        if offset % _ALIGNMENT_BYTES:
            return False
        address = self.tensor.value.data_ptr() + offset
        binding.bind_input(name, device.kind, device.number, self.dtype, self.shape, address)
        return True


def is_on_device(rows: object) -> TypeGuard[DeviceRows]:
    """Return whether `rows`, which the engine takes for an array, are on a device."""
    return isinstance(rows, DeviceRows)


def whole(value: ort.OrtValue, session: ort.InferenceSession) -> Array:
    """Return all rows of what `session` gave; the engine passes them on as if they were an array."""
    tensor = _DeviceTensor(value, session)
    return cast(Array, DeviceRows(tensor, 0, tensor.shape[0]))


def stack(parts: Sequence[Array]) -> Array:
    """Return `parts` one after the other on the batch axis: where they are rows of one tensor in its order, as such; else on the host."""
    if is_on_device(parts[0]):
        rows = [part for part in parts if is_on_device(part)]
        follow = all(one.tensor is other.tensor and one.stop == other.start for one, other in itertools.pairwise(rows))
        if follow and len(rows) == len(parts):
            return cast(Array, DeviceRows(rows[0].tensor, rows[0].start, rows[-1].stop))
    return np.concatenate(parts)
