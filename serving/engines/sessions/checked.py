"""Which segments have run on this machine since it started, so that one is not run again for a check while its files are the same."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from contract.repository.model import Segment, TensorSpec
from serving.engines.cache_json import append_private, read_private
from serving.engines.sessions.file_digests import current_boot
from serving.engines.sessions.runtime import SegmentFile

_SETTLED_S = 2.0
_TOO_LONG_BYTES = 4_000_000  # some fifty thousand segments; beyond it the record is begun anew


class CheckedSegments:
    """The segments that were checked. facts: what a check depends on beside the segment: the runtime, its version, the processor.

    computed_by: what computes a segment, where a runtime leaves some to another: what one has run, the other has not.
    file: where later processes find what this one has checked; None: nowhere. A segment is known while its files have the same inodes,
    sizes and times, its configuration says the same of its tensors, and until the machine starts again, as is so of hashes
    (file_digests.py). settled_s: one that was written less than so long ago is not remembered. Safe to use from several threads.
    """

    def __init__(
        self,
        file: Path | None,
        facts: Sequence[str],
        settled_s: float = _SETTLED_S,
        computed_by: Callable[[Segment], str] = lambda segment: "",
    ) -> None:
        self._boot = current_boot()
        self._file = file if self._boot else None
        self._facts = [self._boot, *facts]
        self._computed_by = computed_by
        self._settled_ns = settled_s * 1e9
        self._known: set[str] | None = None  # until the record has been read
        self._new: list[str] = []
        self._lock = threading.Lock()

    def knows(self, file: SegmentFile) -> bool:
        """Whether `file` was checked as it is now. Raises RepositoryError when it was not there when it was first asked for."""
        key = self.key(file)
        with self._lock:
            if self._known is None:
                self._known = _read(self._file)
            return key in self._known

    def add(self, file: SegmentFile, before: str) -> None:
        """Note that `file` has been checked, unless its `key` is not what it was `before` that."""
        newest_ns = max(change for *_, change in file.kept.identities())
        if time.time_ns() - newest_ns < self._settled_ns:
            return
        key = self.key(file)
        if key != before:
            return  # what ran was another content
        with self._lock:
            self._known = (_read(self._file) if self._known is None else self._known) | {key}
            self._new.append(key)

    def save(self) -> None:
        """Keep what was added, a line each, in one write, so that those of several processes do not mix."""
        with self._lock:
            new, self._new = self._new, []
        if new:
            append_private(self._file, "".join(f"{key}\n" for key in new).encode(), _TOO_LONG_BYTES)

    def key(self, file: SegmentFile) -> str:
        """Return what `file` is known by, as it is now. Raises RepositoryError."""
        segment = file.segment
        specs = [_spec(spec) for spec in (*segment.inputs, *segment.outputs)]
        sizes = {name: size.reference for name, size in segment.sizes.items()}
        what = [str(file.model.absolute()), file.kept.identities(), len(segment.inputs), specs, sizes]
        facts = [self._facts, self._computed_by(segment), *what]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _spec(spec: TensorSpec) -> list[object]:
    return [spec.name, spec.dtype, spec.shape, spec.axes]


def _read(file: Path | None) -> set[str]:
    """Return the keys in `file`; what cannot be read, or not believed, only costs time."""
    with suppress(ValueError):
        return set(read_private(file).decode("ascii").split())
    return set()
