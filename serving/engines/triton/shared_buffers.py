"""Memory that a Triton on this host can read, too: POSIX shared memory in buffers, each for the inputs of one request at a time."""

from __future__ import annotations

import fcntl
import os
import secrets
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from contract.dtypes import Array

PREFIX = "espalier-inputs-"
_MOST_BYTES = 256 << 20  # for each Triton
_MOST_BUFFERS = 64
SMALLEST_BYTES = 256 << 10
_ALIGNMENT = 64  # of tensors: whoever computes on them in place may want it
_FOLDER = Path("/dev/shm")


@dataclass(frozen=True)
class SharedTensor:
    """Where a tensor lies: `byte_size` bytes at `offset` in the region of that name."""

    region: str
    offset: int
    byte_size: int


class SharedBuffer:
    """`byte_size` bytes of shared memory under `name`, which no other has. Raises OSError where there are not so many.

    Its file is locked as long as this process lives, by which others know whether it is still of use.
    """

    def __init__(self, byte_size: int) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
        self.byte_size = byte_size
        path = _FOLDER / self.name
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._remove = weakref.finalize(self, _remove, path, self._file)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        # All of it now: to run out of memory later would kill the process that touches it.
        os.posix_fallocate(self._file, 0, byte_size)

    @property
    def key(self) -> str:
        """Return its name as shm_open takes it."""
        return f"/{self.name}"

    def write(self, arrays: Mapping[str, Array]) -> dict[str, SharedTensor]:
        """Write `arrays` (no BYTES), which take `space(arrays)` bytes, and return where they lie. Raises OSError."""
        places = {}
        end = 0
        for name, array in arrays.items():
            data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
            if os.pwrite(self._file, data.data, end) != data.nbytes:
                raise OSError("shared memory was written in part only")
            places[name] = SharedTensor(self.name, end, data.nbytes)
            end += _aligned(data.nbytes)
        return places

    def close(self) -> None:
        """Give it up; the memory is freed when Triton does not have it any more, either."""
        self._remove()


class SharedBuffers:
    """The buffers that one Triton knows, and how many more it may know: `most_bytes` together.

    A buffer that may still be read is never written again: it is retired, and given up when Triton lets it go.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._known: set[SharedBuffer] = set()
        self._free: list[SharedBuffer] = []
        self.retired: list[SharedBuffer] = []
        self.wanted = 0  # bytes, of the largest buffer that was lacking

    @property
    def known(self) -> frozenset[SharedBuffer]:
        """Return all, in use or not."""
        return frozenset(self._known)

    def take(self, byte_size: int) -> SharedBuffer | None:
        """Return the smallest free buffer of at least `byte_size` bytes; where there is none, None, and it is wanted."""
        fitting = [buffer for buffer in self._free if buffer.byte_size >= byte_size]
        if not fitting:
            self.wanted = max(self.wanted, _buffer_size(byte_size))
            return None
        buffer = min(fitting, key=lambda buffer: buffer.byte_size)
        self._free.remove(buffer)
        return buffer

    def put(self, buffer: SharedBuffer) -> None:
        """Take a buffer, new or taken before, that nobody reads."""
        self._known.add(buffer)
        self._free.append(buffer)

    def retire(self, buffer: SharedBuffer) -> None:
        """Take one that Triton may still read."""
        self.retired.append(buffer)

    def forget(self, buffer: SharedBuffer) -> None:
        """Give up a retired buffer, which Triton has let go."""
        self.retired.remove(buffer)
        self._known.remove(buffer)
        buffer.close()

    def make_room(self, byte_size: int) -> None:
        """Retire free buffers of less than `byte_size` bytes, as many as it takes for one of that size; none where all are not enough."""
        smaller = sorted((buffer for buffer in self._free if buffer.byte_size < byte_size), key=lambda buffer: buffer.byte_size)
        enough = next((count for count in range(len(smaller) + 1) if self._fits(byte_size, {*smaller[:count]})), 0)
        for buffer in smaller[:enough]:
            self._free.remove(buffer)
            self.retire(buffer)

    def stop_growing(self) -> None:
        """Have no more memory than now."""
        self._most_bytes = sum(buffer.byte_size for buffer in self._known)

    def has_room(self, byte_size: int) -> bool:
        """Whether there may be one more buffer, of `byte_size` bytes."""
        return self._fits(byte_size, set())

    def _fits(self, byte_size: int, without: set[SharedBuffer]) -> bool:
        left = self._known - without
        return len(left) < _MOST_BUFFERS and sum(buffer.byte_size for buffer in left) + byte_size <= self._most_bytes


def space(arrays: Iterable[Array]) -> int:
    """Return how many bytes of a buffer `arrays` take."""
    return sum(_aligned(array.nbytes) for array in arrays)


def is_abandoned(name: str) -> bool:
    """Whether the process is gone that made the buffer `name`."""
    try:
        file = os.open(_FOLDER / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return True
    except OSError:  # another user's
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return os.fstat(file).st_size > 0  # one without a size is being made just now: it is locked before it has one
    finally:
        os.close(file)


def remove_abandoned() -> None:
    """Delete the buffers of processes that were killed."""
    for file in _FOLDER.glob(f"{PREFIX}*"):
        if is_abandoned(file.name):
            file.unlink(missing_ok=True)


def _remove(path: Path, file: int) -> None:
    path.unlink(missing_ok=True)
    os.close(file)


def _buffer_size(byte_size: int) -> int:
    return max(SMALLEST_BYTES, 1 << (byte_size - 1).bit_length())


def _aligned(byte_size: int) -> int:
    return -(-byte_size // _ALIGNMENT) * _ALIGNMENT
