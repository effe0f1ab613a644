"""Bytes that tasks take, shared and as separate networks: resident in fresh processes, and on disk."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from zipfile import ZipFile

import numpy as np

from benchmarks.memory.measure import separate_resident, shared_resident
from benchmarks.models.some_tasks import only_tasks
from benchmarks.repository.networks import Feed, SeparateNetworks
from contract.repository import Repository


def resident_bytes(
    repository: Repository, names: Sequence[str], networks: SeparateNetworks, feed: Feed, folder: Path, repeats: int
) -> tuple[int, int] | None:
    """Return the resident bytes beyond the bare process after one request, shared and separate, medians of `repeats` processes each.

    None where it cannot be measured: not on Linux, and of models that espalier did not export.
    """
    if not sys.platform.startswith("linux") or any(repository.tasks[name].plain for name in names):
        return None
    file = _write_feed(feed, folder / "feed.npz")
    part = folder / "repository.pickle"
    part.write_bytes(pickle.dumps(only_tasks(repository, names)))
    shared = [shared_resident(part, names, feed=file) for _ in range(repeats)]
    separate = [separate_resident([networks.files[name] for name in names], feed=file) for _ in range(repeats)]
    return int(median(shared)), int(median(separate))


def _write_feed(feed: Feed, file: Path) -> Path:
    """Write `feed` as numpy reads it, whatever its inputs are called: some names mean something to `numpy.savez`."""
    with ZipFile(file, "w") as archive:
        for name, values in feed.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, np.ascontiguousarray(values), allow_pickle=False)
    return file


def disk_bytes(repository: Repository, names: Sequence[str], networks: SeparateNetworks) -> tuple[int, int] | None:
    """Return the bytes of what these tasks need of the repository, and of the same as separate networks; None as above."""
    if any(repository.tasks[name].plain for name in names):
        return None
    part = only_tasks(repository, names)
    return _folder_bytes([repository.path / name for name in (*part.segments, *part.tasks)]), networks.disk_bytes(names)


def _folder_bytes(folders: Sequence[Path]) -> int:
    """Return the bytes of the files in `folders`; of files that are hard links of each other, once."""
    found = {}
    for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
        facts = file.stat()
        found[facts.st_dev, facts.st_ino] = facts.st_size
    return sum(found.values())
