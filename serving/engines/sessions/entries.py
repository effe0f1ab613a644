"""A folder of prepared segments, which processes and runtimes may share: what an entry is, that it is whole, and which goes first.

    FOLDER/<key>/        one entry: files that its runtime made, manifest.json with what the key stands for and the SHA-256 of each
    FOLDER/new-*, old-*  being written, being deleted; what a killed process left of them goes after an hour
    FOLDER/weights/      what several entries of ONNX Runtime have (onnxruntime/shared_weights.py)
    FOLDER/hashed.jsonl  which files have been hashed since the machine started

An entry is written aside and renamed. Whatever is damaged, foreign or half there does not match its checksums, and is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serving.engines.sessions.file_digests import DigestRecord, FileDigests, current_boot

POOL = "weights"
_HASHED, _MANIFEST = "hashed.jsonl", "manifest.json"
_STALE_S = 3600.0
_CPU_FIELDS = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU implementer", "CPU part", "Features")
_LINKED = re.compile(r"weights-[0-9a-f]{16}\.bin")


@dataclass(frozen=True)
class Entry:
    """A folder, and what it must have been made of."""

    folder: Path
    facts: Mapping[str, object]


class Entries:
    """The entries in `folder`, of `limit_bytes` at most: the ones used least recently go first.

    checksum: of a file in an entry, by default its digest. Weights that no entry has any more go with the last one, whichever runtime's
    entries they were.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        digests: FileDigests,
        checksum: Callable[[Path], str] | None = None,
    ) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._checksum = checksum or digests.of

    def entry(self, facts: Mapping[str, object]) -> Entry:
        """Return the entry that `facts` lead to, whether it is there or not."""
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return Entry(self._folder / key, facts)

    def verify(self, entry: Entry) -> None:
        """Raise ValueError, KeyError or OSError unless `entry` is there and as it was made."""
        manifest = json.loads((entry.folder / _MANIFEST).read_bytes())
        if manifest["facts"] != entry.facts or manifest["files"] != self._checksums(entry.folder):
            raise ValueError("the entry is not what its key says")

    def used(self, entry: Entry) -> None:
        """Note that `entry` has been used now."""
        with suppress(OSError):
            os.utime(entry.folder / _MANIFEST)

    def make(self, entry: Entry, write: Callable[[Path], bool]) -> bool:
        """Have `write(folder)` make the files of `entry` aside, and put them in the place of what is there. Raises OSError.

        Return False where `write` does.
        """
        self._delete(entry.folder)
        work = self._aside("new")
        work.mkdir(mode=0o700)
        try:
            if not write(work):
                return False
            manifest = {"facts": entry.facts, "files": self._checksums(work)}
            for file in work.iterdir():
                if file.stat().st_mode & 0o777 != 0o400:  # a link is there already, and its times are to stay
                    file.chmod(0o400)  # sessions map it: what is mapped must not change
            (work / _MANIFEST).write_text(json.dumps(manifest))
            with suppress(OSError):  # another process was faster: its entry is as good
                work.rename(entry.folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return True

    def prune(self) -> None:
        """Delete what was used least recently until the entries are within the limit, and what killed processes left."""
        for folder in self._children(stale=True):
            shutil.rmtree(folder, ignore_errors=True)
        _prune_pool(self._folder / POOL)
        used = sorted((_last_used(folder), folder, _size(folder)) for folder in self._children(stale=False))
        excess = sum(size for _, _, size in used) - self._limit_bytes
        for _, folder, size in used:
            if excess <= 0:
                return
            self._delete(folder)
            _prune_pool(self._folder / POOL)
            excess -= size

    def _checksums(self, folder: Path) -> dict[str, str]:
        return {file.name: self._checksum(file) for file in sorted(folder.iterdir()) if file.name != _MANIFEST}

    def _children(self, stale: bool) -> Iterator[Path]:
        for folder in self._folder.iterdir():
            if folder.name.startswith(_HASHED) or folder.name == POOL:
                continue
            is_work = folder.name.startswith(("new-", "old-"))
            if is_work == stale and (not stale or time.time() - _last_used(folder) > _STALE_S):
                yield folder

    def _delete(self, folder: Path) -> None:
        """Delete an entry so that no process sees half of it; sessions that map its weights keep them."""
        with suppress(OSError):
            shutil.rmtree(folder.rename(self._aside("old")))

    def _aside(self, kind: str) -> Path:
        return self._folder / f"{kind}-{os.getpid()}-{secrets.token_hex(8)}"


def file_digests(folder: Path, record_hashes: bool) -> FileDigests:
    """Return what hashes files for the entries in `folder`. record_hashes: as of `SessionStoreOptions`."""
    return FileDigests(record=DigestRecord(folder / _HASHED, current_boot()) if record_hashes else None)


def linked_files(model: Path) -> list[Path] | None:
    """Return the data files beside the ONNX file `model` that a repository's segments share; None when something else is beside it."""
    others = sorted(file for file in model.parent.iterdir() if file.name != model.name)
    return others if all(_LINKED.fullmatch(file.name) for file in others) else None


def digest_with(digests: FileDigests, model: Path, files: list[Path]) -> str:
    """Return what tells `model` with the data `files` beside it from all others; without such files, its own SHA-256. Raises OSError."""
    if not files:
        return digests.of(model)
    lines = [f"{file.name} {digests.of(file)}" for file in (model, *files)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def processor() -> str:
    """Return all that is known of the processor's model and instruction sets, which choose the layout of optimised weights."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return f"{platform.machine()} " + " ".join(f"{key}={fields[key]}" for key in _CPU_FIELDS if key in fields)


def _prune_pool(folder: Path) -> None:
    """Delete the weights that no entry links any more."""
    with suppress(OSError):
        for file in folder.iterdir():
            with suppress(OSError):
                if file.stat().st_nlink == 1:
                    file.unlink()


def _last_used(folder: Path) -> float:
    for path in (folder / _MANIFEST, folder):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    with suppress(OSError):
        return sum(
            status.st_size // max(1, status.st_nlink - 1) for status in map(Path.stat, folder.iterdir())
        )  # one link is the pool's
    return 0
