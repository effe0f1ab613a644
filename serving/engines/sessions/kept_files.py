"""Keeps the files of a model's folder, whatever becomes of the folder: removed, moved away, replaced.

A file that is mapped into memory stays on its disk until nobody maps it, and a mapping, unlike an open file, is none of the descriptors of
which a process has a thousand as a rule. Its pages are read only if the folder is gone; until then it takes addresses and no memory.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_MAP_FAILED = ctypes.c_void_p(-1).value
_PIECE_BYTES = 1 << 30  # of one write


class KeptFiles:
    """The files beside `model`, itself among them, as they are now. Raises OSError when there are none.

    Where the system cannot map one, that is logged, and it is kept by its path alone.
    """

    def __init__(self, model: Path) -> None:
        self._model = model
        self._files = [_Kept(path) for path in sorted(model.parent.iterdir()) if path.is_file()]
        if model not in (file.path for file in self._files):
            raise FileNotFoundError(str(model))

    @property
    def bytes(self) -> int:
        """Return the size of all."""
        return sum(file.bytes for file in self._files)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the size of each, in bytes, by its name: as it is now, if it is in its place."""
        return {file.path.name: file.size() for file in self._files}

    def identities(self) -> list[tuple[str, int, int, int, int, int]]:
        """Return of each file its name, and what changes whenever its content does: device, inode, size, times of writing and change."""
        return [file.identity() for file in self._files]

    def use(self, work: Callable[[Path], _T]) -> _T:
        """Return `work(path)`, `path` being the model with its files beside it, in its own folder or, if that has gone, in a copy.

        Raises OSError when it is gone and cannot be copied, and what `work` raises.
        """
        if self._are_in_place():
            try:
                return work(self._model)
            except Exception:
                if self._are_in_place():
                    raise
        try:
            with self._copied() as model:
                return work(model)
        except Exception:
            if not self._model.is_file():
                raise
            return work(self._model)  # what was kept is of no use; segments of one name have one content

    def _are_in_place(self) -> bool:
        return all(file.is_in_place() for file in self._files)

    @contextmanager
    def _copied(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="espalier-kept-") as folder:
            for file in self._files:
                file.copy_to(Path(folder) / file.path.name)
            yield Path(folder) / self._model.name


class _Kept:
    """One file. `address`: of its mapping; None where there is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            self._status = os.fstat(stream.fileno())
            self.bytes = self._status.st_size
            self._address = _map(stream.fileno(), self.bytes, path.name)
        if self._address is not None:
            weakref.finalize(self, _unmap, self._address, self.bytes)

    def is_in_place(self) -> bool:
        """Whether its path still leads to it. No other file can have its number meanwhile, if it is mapped."""
        try:
            return os.path.samestat(self.path.stat(), self._status)
        except OSError:
            return False

    def size(self) -> int:
        """Return its size, which may be another one than it was, if it is in its place; else what it was."""
        try:
            status = self.path.stat()
        except OSError:
            return self.bytes
        return status.st_size if os.path.samestat(status, self._status) else self.bytes

    def identity(self) -> tuple[str, int, int, int, int, int]:
        """Return what tells it from others and from itself before a change; as it was, where its path leads to it no longer."""
        status = self._status
        with suppress(OSError):
            now = self.path.stat()
            status = now if os.path.samestat(now, status) else status
        return self.path.name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def copy_to(self, target: Path) -> None:
        """Write its content to `target`, a new file. Raises OSError, also where it was made shorter: the kernel reads the pages."""
        if self._address is None and self.bytes:
            shutil.copyfile(self.path, target)
            return
        pages = memoryview((ctypes.c_char * self.bytes).from_address(self._address)) if self._address else memoryview(b"")
        with target.open("xb", buffering=0) as stream:
            written = 0
            while written < self.bytes:
                written += stream.write(pages[written : written + _PIECE_BYTES]) or 0


def _map(descriptor: int, size: int, name: str) -> int | None:
    """Return the address of a mapping of a file, None where there can be none. (`mmap.mmap` would keep a descriptor.)"""
    if not size:
        return None
    address: int | None = _c_library().mmap(None, size, mmap.PROT_READ, mmap.MAP_PRIVATE, descriptor, 0)
    if address != _MAP_FAILED:
        return address
    reason = os.strerror(ctypes.get_errno())
    log.warning("%s is not kept (%s): if it is removed from disk while it is served, it cannot be opened again.", name, reason)
    return None


def _unmap(address: int, size: int) -> None:
    _c_library().munmap(address, size)


@cache
def _c_library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return library
