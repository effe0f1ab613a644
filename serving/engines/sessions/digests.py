"""SHA-256 of files, remembered while a file is the same."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path

from serving.engines.sessions.digest_record import DigestRecord, Identity, Known

_SETTLED_S = 2.0


class FileDigests:
    """Hashes files; one that has not changed since (same inode, size and times) is not read again. Safe to use from several threads.

    settled_s: a file that was written less than so long ago is not remembered: another write within the clock's tick would not show.
    record: what earlier processes have hashed, and where the next ones find what this one has; None: each begins anew.
    """

    def __init__(self, settled_s: float = _SETTLED_S, record: DigestRecord | None = None) -> None:
        self._settled_ns = settled_s * 1e9
        self._record = record
        self._known: Known | None = None  # until the record has been read
        self._lock = threading.Lock()

    def of(self, file: Path) -> str:
        """Return the SHA-256 (hex) of the content of `file`. Raises OSError."""
        file = file.absolute()
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            with self._lock:
                if self._known is None:
                    self._known = self._record.read() if self._record else {}
                known = self._known.get(file)
            if known is not None and known[0] == identity:
                return known[1]
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if time.time_ns() - status.st_ctime_ns >= self._settled_ns:
            self._remember(file, identity, digest)
        return digest

    def _remember(self, file: Path, identity: Identity, digest: str) -> None:
        with self._lock:
            if self._known is not None:
                self._known[file] = (identity, digest)
        if self._record is not None:
            self._record.add(file, identity, digest)
