"""Frozen features: what the network computes before its first tuned block, computed once and shared by all trainings that start there.

An entry belongs to a prefix of the network (its key says which) and a set of images. Entries live in memory up to a limit, the least
recently used ones give way; what is larger than the limit lives in a memory-mapped file, if there is a folder for it.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tuning.errors import BadOptions
from tuning.training.compute import Compute

_BATCH = 128  # images per run of a prefix
_DISK_SHARE = 0.5  # of the free space that files may take

_Features = tuple[Tensor, ...]
OnCached = Callable[[str], None]


@dataclass(frozen=True)
class _Entry:
    """images: whose features these are; kept, so that their id stays theirs. held_bytes: of memory, 0 for files."""

    images: Tensor
    features: _Features
    held_bytes: int


class FeatureStore:
    """Features by prefix and images; may be used by several threads, and by several trainers: they hold different image tensors.

    limit_bytes: of memory; 0 holds nothing. folder: where files may go, None for nowhere; they are gone when nobody has their features
    any more. say: is told the size of an entry before it is computed. Raises BadOptions when `folder` is not there.
    """

    def __init__(self, limit_bytes: int, folder: Path | None = None, say: OnCached | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise BadOptions(f"The folder for frozen features, {folder}, does not exist.")
        self.enabled = limit_bytes > 0 or folder is not None
        self._limit = limit_bytes
        self._say = say or (lambda sentence: None)
        self._folder = folder
        self._entries: OrderedDict[tuple[str, int], _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def has_room(self, prefix: nn.Module, images: Tensor, rows: int, compute: Compute) -> bool:
        """Return whether the features of `rows` images can be held at all; `images`: some of them, uint8."""
        size = sum(sample.nbytes for sample in _run(prefix, images[:1], compute)) * rows
        return size <= self._limit or (self._folder is not None and size <= _DISK_SHARE * shutil.disk_usage(self._folder).free)

    def get(self, key: str, what: str, prefix: nn.Module, images: Tensor, compute: Compute) -> _Features:
        """Return the features of `images` (uint8, n of them): tensors of n rows on the CPU. Nobody may write to them.

        prefix: maps a batch of images to a tuple of tensors; it is what `key` names. what: `images` in a word, for people.
        """
        name = (key, id(images))
        with self._lock:
            if name not in self._entries:
                self._entries[name] = self._compute(prefix, images, what, compute)
            self._entries.move_to_end(name)
            return self._entries[name].features

    def _compute(self, prefix: nn.Module, images: Tensor, what: str, compute: Compute) -> _Entry:
        samples = _run(prefix, images[:1], compute)
        size = sum(sample.nbytes for sample in samples) * len(images)
        in_memory = self._folder is None or size <= self._limit
        self._say(
            f"{size / 1e6:,.0f} MB of frozen features of {len(images):,} {what} images, {'in memory' if in_memory else 'in a file'}"
        )
        if in_memory:
            self._make_room(size)
        place = _empty if in_memory else self._mapped
        room = tuple(place((len(images), *sample.shape[1:]), sample) for sample in samples)
        _fill(room, prefix, images, compute)
        return _Entry(images, room, size if in_memory else 0)

    def _make_room(self, size: int) -> None:
        """Forget entries in memory, the least recently used first, until `size` bytes fit or none are left."""
        for name in [name for name, entry in self._entries.items() if entry.held_bytes]:
            if sum(entry.held_bytes for entry in self._entries.values()) + size <= self._limit:
                return
            del self._entries[name]

    def _mapped(self, shape: tuple[int, ...], sample: Tensor) -> Tensor:
        # Channels last in the file where they are in memory: a batch is then read in one piece either way.
        last = _is_channels_last(sample)
        stored = (shape[0], *shape[2:], shape[1]) if last else shape
        with tempfile.TemporaryFile(dir=self._folder) as file:
            array = np.memmap(file, dtype=sample.numpy().dtype, mode="w+", shape=stored)
        tensor = torch.from_numpy(array)
        return tensor.movedim(-1, 1) if last else tensor


def _empty(shape: tuple[int, ...], sample: Tensor) -> Tensor:
    layout = torch.channels_last if _is_channels_last(sample) else torch.contiguous_format
    return torch.empty(shape, dtype=sample.dtype, memory_format=layout)


def _is_channels_last(sample: Tensor) -> bool:
    return sample.ndim == 4 and sample.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _run(prefix: nn.Module, images: Tensor, compute: Compute) -> _Features:
    """Return the features of a batch on the CPU, float32 whatever the precision: numpy's files know no bfloat16."""
    with compute.autocast():
        found = prefix(compute.put(images))
    return tuple(f.float().cpu() if f.is_floating_point() else f.cpu() for f in found)


def _fill(room: _Features, prefix: nn.Module, images: Tensor, compute: Compute) -> None:
    start = 0
    for batch in _batches(images):
        for whole, part in zip(room, _run(prefix, batch, compute), strict=True):
            whole[start : start + len(batch)] = part
        start += len(batch)


def _batches(images: Tensor) -> Iterator[Tensor]:
    return iter(torch.split(images, _BATCH))
