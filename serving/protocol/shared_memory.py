"""System shared memory: tensors that a client on this machine leaves in, or takes out of, POSIX shared memory.

Whoever reaches the server's ports can have it read and write shared memory objects of its user, so that this is off by default.
Regions are read and written as files, not mapped: a mapping whose file is made shorter kills the process that touches it, and what
was checked could change while it is used. It costs one copy per tensor, as the network would.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contract.errors import InvalidRequest
from serving.errors import BodyTooLarge, UnknownRegion, Unsupported
from serving.protocol.fields import optional, required

MemoryKind = Literal["system", "cuda"]
_NOT_OFFERED: Mapping[MemoryKind, str] = {
    "system": "System shared memory is not offered by this server, which was started without it.",
    "cuda": "CUDA shared memory is not offered by this server; send the data with the request.",
}
MAX_REGIONS = 256  # each holds a file descriptor
_FOLDER = Path("/dev/shm")
_MAX_KEY_BYTES = 255
_PREFIX = "shared_memory_"  # of the parameters' names
_TRITONS = "triton_python_backend_shm_region_"  # objects in which a Triton passes what others sent on to its Python models


class Region:
    """`byte_size` bytes from `offset` on of the shared memory object `key`.

    Its file stays open as long as somebody holds the region: a request finishes on what it started with.
    """

    def __init__(self, name: str, key: str, offset: int, byte_size: int) -> None:
        if offset < 0 or byte_size < 1:
            raise InvalidRequest(
                f"A region of {byte_size} bytes at offset {offset} cannot be; the offset is at least 0, the size 1."
            )
        self.name, self.key, self.offset, self.byte_size = name, key, offset, byte_size
        self._file = _open(key)
        weakref.finalize(self, os.close, self._file)
        self._check_end(offset + byte_size)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` in the region on. Raises InvalidRequest when the object is no longer that large."""
        data = os.pread(self._file, size, self.offset + offset)
        if len(data) != size:
            raise InvalidRequest("The shared memory object has become smaller since it was registered; register it again.")
        return data

    def write(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset` in the region. Raises InvalidRequest when the object is no longer that large."""
        self._check_end(self.offset + offset + len(data))
        os.pwrite(self._file, data, self.offset + offset)

    def _check_end(self, end: int) -> None:
        size = os.fstat(self._file).st_size
        if end > size:
            raise InvalidRequest(f"The shared memory object has {size} bytes, but the region needs {end}.")


@dataclass(frozen=True)
class Slot:
    """Where a tensor lies: `byte_size` bytes at `offset` in `region`."""

    region: Region
    offset: int
    byte_size: int

    def read(self) -> bytes:
        """Return all the bytes."""
        return self.region.read(self.offset, self.byte_size)

    def write(self, name: str, data: bytes) -> None:
        """Put the output `name` here. Raises InvalidRequest if it does not fit."""
        if len(data) > self.byte_size:
            raise InvalidRequest(f"Output {name!r} takes {len(data)} bytes, but its place in shared memory has {self.byte_size}.")
        self.region.write(self.offset, data)


class SharedMemory:
    """The regions that clients have registered. max_bytes: the most that the inputs of one request may take.

    One thread registers and unregisters; any thread may look a region up.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Add a region. Raises InvalidRequest for a name in use, a key that is none or Triton's own, or an object that is too small."""
        if not name:
            raise InvalidRequest("A shared memory region needs a name.")
        if name in self._regions:
            raise InvalidRequest("A shared memory region of that name is registered already; unregister it first.")
        if len(self._regions) >= MAX_REGIONS:
            raise InvalidRequest(f"There are {MAX_REGIONS} shared memory regions, which is the limit; unregister some.")
        self._regions[name] = Region(name, key, offset, byte_size)

    def unregister(self, name: str = "") -> None:
        """Forget the region `name`, or all of them. One that is not there is no error, as on Triton."""
        if name:
            self._regions.pop(name, None)
        else:
            self._regions.clear()

    def status(self, name: str = "") -> list[Region]:
        """Return the region `name`, or all. Raises UnknownRegion."""
        return [self._find(name)] if name else list(self._regions.values())

    def slot(self, region: str, offset: int, byte_size: int) -> Slot:
        """Return a place within `region`. Raises UnknownRegion, or InvalidRequest when it reaches beyond it."""
        found = self._find(region)
        if offset < 0 or byte_size < 0 or offset + byte_size > found.byte_size:
            raise InvalidRequest(
                f"{byte_size} bytes at offset {offset} do not lie within the shared memory region, which has {found.byte_size} bytes."
            )
        return Slot(found, offset, byte_size)

    def _find(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise UnknownRegion
        return region


class RequestMemory:
    """What one request has in shared memory (None: not offered); its inputs together take no more than the limit."""

    def __init__(self, memory: SharedMemory | None) -> None:
        self._memory = memory
        self._used_bytes = 0

    def find(self, parameters: Mapping[str, object], where: str) -> Slot | None:
        """Return where the tensor with these `parameters` lies, None when not in shared memory. Raises Unsupported, InvalidRequest."""
        if not is_shared(parameters):
            return None
        if self._memory is None:
            raise Unsupported(f"{where} is in shared memory, which this server does not offer; send the data with the request.")
        return self._memory.slot(
            required(parameters, f"{_PREFIX}region", str, where),
            optional(parameters, f"{_PREFIX}offset", int, where, 0),
            required(parameters, f"{_PREFIX}byte_size", int, where),
        )

    def read(self, parameters: Mapping[str, object], where: str) -> bytes | None:
        """Return the bytes of an input, None when it is not in shared memory. Raises also BodyTooLarge."""
        slot = self.find(parameters, where)
        if slot is None or self._memory is None:
            return None
        self._used_bytes += slot.byte_size
        if self._used_bytes > self._memory.max_bytes:
            raise BodyTooLarge(self._memory.max_bytes)
        return slot.read()


def offered(memory: SharedMemory | None, kind: MemoryKind) -> SharedMemory:
    """Return `memory`, that of this `kind`. Raises Unsupported when there is none."""
    if memory is None:
        raise Unsupported(_NOT_OFFERED[kind])
    return memory


def is_shared(parameters: Mapping[str, object]) -> bool:
    """Whether a tensor with these `parameters` is in shared memory."""
    return f"{_PREFIX}region" in parameters


def _open(key: str) -> int:
    """Return a descriptor of the shared memory object `key`, which is a file directly below /dev/shm and nothing else."""
    name = key.lstrip("/")  # as shm_open reads it
    if name in ("", ".", "..") or "/" in name or not name.isprintable() or len(name.encode()) > _MAX_KEY_BYTES:
        raise InvalidRequest("The key of a shared memory object is one name, with or without a slash in front of it.")
    if name.startswith(_TRITONS):
        raise InvalidRequest(f"Shared memory objects whose keys begin with {_TRITONS} are Triton's own; give yours another key.")
    try:
        # Not through links, and not waiting for a pipe's other end.
        file = os.open(_FOLDER / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidRequest("There is no shared memory object of that key that this server may read and write.") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise InvalidRequest("What has that key is no shared memory object.")
    return file
