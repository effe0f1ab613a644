"""Frozen features: what the network computes before its first tuned block, computed once and shared by all trainings that start there.

An entry belongs to a prefix of the network (its key says which) and a set of images. Entries live in memory up to a limit, the least
recently used ones give way; what is larger than the limit lives in a memory-mapped file, if there is a folder for it.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tuning.compute import Compute

_BATCH = 128  # images per run of a prefix
_DISK_SHARE = 0.5  # of the free space that files may take

Features = tuple[Tensor, ...]
OnCached = Callable[[str], None]


class FeatureStore:
    """Features by prefix and images; may be used by several threads.

    limit_bytes: of memory; 0 holds nothing. folder: where files may go, None for nowhere; they are gone when the store is closed.
    say: is told the size of an entry before it is computed.
    """

    def __init__(self, limit_bytes: int, folder: Path | None = None, say: OnCached | None = None) -> None:
        self.enabled = limit_bytes > 0 or folder is not None
        self._limit = limit_bytes
        self._say = say or (lambda sentence: None)
        self._files = tempfile.TemporaryDirectory(prefix="espalier-features-", dir=folder) if folder is not None else None
        self._entries: OrderedDict[tuple[str, str], Features] = OrderedDict()
        self._in_memory: dict[tuple[str, str], int] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Forget everything, and remove the files."""
        self._entries.clear()
        self._in_memory.clear()
        if self._files is not None:
            self._files.cleanup()

    def has_room(self, prefix: nn.Module, images: Tensor, rows: int, compute: Compute) -> bool:
        """Return whether the features of `rows` images can be held at all; `images`: some of them, uint8."""
        size = sum(sample.nbytes for sample in _run(prefix, images[:1], compute)) * rows
        return size <= self._limit or (self._files is not None and size <= _DISK_SHARE * _free_bytes(Path(self._files.name)))

    def get(self, key: str, what: str, prefix: nn.Module, images: Tensor, compute: Compute) -> Features:
        """Return the features of `images` (uint8, n of them): tensors of n rows on the CPU.

        prefix: maps a batch of images to a tuple of tensors; it is what `key` names. what: names `images`.
        """
        with self._lock:
            if (key, what) not in self._entries:
                self._entries[key, what] = self._compute((key, what), prefix, images, compute)
            self._entries.move_to_end((key, what))
            return self._entries[key, what]

    def _compute(self, name: tuple[str, str], prefix: nn.Module, images: Tensor, compute: Compute) -> Features:
        samples = _run(prefix, images[:1], compute)
        size = sum(sample.nbytes for sample in samples) * len(images)
        in_memory = self._files is None or size <= self._limit
        where = "in memory" if in_memory else "in a file"
        self._say(f"{size / 1e6:,.0f} MB of frozen features of {len(images):,} {name[1]} images, {where}")
        if in_memory:
            self._in_memory[name] = size
            while len(self._in_memory) > 1 and sum(self._in_memory.values()) > self._limit:
                oldest = next(entry for entry in self._entries if entry in self._in_memory)
                del self._entries[oldest], self._in_memory[oldest]
        place = _empty if in_memory else self._mapped
        room = tuple(place((len(images), *sample.shape[1:]), sample) for sample in samples)
        _fill(room, prefix, images, compute)
        return room

    def _mapped(self, shape: tuple[int, ...], sample: Tensor) -> Tensor:
        assert self._files is not None
        file = Path(self._files.name) / f"{next(self._numbers)}.bin"
        # Channels last in the file where they are in memory: a batch is then read in one piece either way.
        last = _is_channels_last(sample)
        stored = (shape[0], *shape[2:], shape[1]) if last else shape
        array = np.memmap(file, dtype=_NUMPY[sample.dtype], mode="w+", shape=stored)
        tensor = torch.from_numpy(array)
        return tensor.movedim(-1, 1) if last else tensor


_NUMPY: dict[torch.dtype, type[np.generic]] = {
    torch.float32: np.float32,
    torch.float16: np.float16,
    torch.float64: np.float64,
    torch.int64: np.int64,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}


def _empty(shape: tuple[int, ...], sample: Tensor) -> Tensor:
    layout = torch.channels_last if _is_channels_last(sample) else torch.contiguous_format
    return torch.empty(shape, dtype=sample.dtype, memory_format=layout)


def _is_channels_last(sample: Tensor) -> bool:
    return sample.ndim == 4 and sample.is_contiguous(memory_format=torch.channels_last)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


@torch.no_grad()
def _run(prefix: nn.Module, images: Tensor, compute: Compute) -> Features:
    """Return the features of a batch, float32: what is stored must not depend on the precision that trainings run in."""
    with compute.autocast():
        found = prefix(compute.put(images))
    return tuple(f.float().cpu() if f.is_floating_point() else f.cpu() for f in found)


def _fill(room: Features, prefix: nn.Module, images: Tensor, compute: Compute) -> None:
    start = 0
    for batch in _batches(images):
        for whole, part in zip(room, _run(prefix, batch, compute), strict=True):
            whole[start : start + len(batch)] = part
        start += len(batch)


def _batches(images: Tensor) -> Iterator[Tensor]:
    return iter(torch.split(images, _BATCH))
