"""SHA-256 of files, remembered while a file is the same: in this process, and on disk for the next one."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serving.engines.cache_json import parse, read_bounded

log = logging.getLogger(__name__)
_Identity = tuple[int, ...]  # of a file: what changes whenever its content does
_Known = dict[Path, tuple[_Identity, str]]

_BOOT_FILE = Path("/proc/sys/kernel/random/boot_id")
_SETTLED_S = 2.0
_TOO_LONG_BYTES = 1_000_000  # some thousand lines; beyond it, those that say nothing any more are taken out


def current_boot() -> str:
    """Return what names this start of the machine, "" where nothing does (not Linux)."""
    try:
        return _BOOT_FILE.read_text().strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class DigestRecord:
    """The digests of files, a line each, in `file`; several processes may add to it. boot: of the machine, "": keep nothing.

    A digest is believed while the file has the same inode, size and times, and only until the machine starts again: a loss of power
    can leave other bytes behind times that are right. Nothing that fails here is an error: files are then hashed.
    """

    file: Path
    boot: str

    def read(self) -> _Known:
        """Return what was hashed since the machine started, the last word on each file."""
        known = dict(self._lines()) if self.boot else {}
        with suppress(OSError, ValueError):
            if self.file.stat().st_size > _TOO_LONG_BYTES:
                self._write(known)
        return known

    def add(self, file: Path, identity: _Identity, digest: str) -> None:
        """Keep that `file` was hashed. One write of one line: lines of several processes do not mix."""
        if not self.boot:
            return
        with suppress(OSError):
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(descriptor, self._line(file, identity, digest))
            finally:
                os.close(descriptor)

    def _lines(self) -> Iterator[tuple[Path, tuple[_Identity, str]]]:
        try:
            lines = read_bounded(self.file).splitlines()
        except OSError:
            return
        except ValueError:
            log.warning("%s is too long to be ours, and begun anew.", self.file)
            lines = []
        damaged = 0
        for line in lines:
            try:
                boot, path, identity, digest = _parse(line)
            except ValueError:  # half a line, or none of ours
                damaged += 1
                continue
            if boot == self.boot:
                yield Path(path), (identity, digest)
        if damaged:
            log.warning("%s: %d lines are damaged, and passed over; what they were about is hashed again.", self.file, damaged)

    def _write(self, known: _Known) -> None:
        """Replace the record by `known`, less the files that are gone; what others add meanwhile is lost, and hashed again."""
        aside = self.file.with_name(f"{self.file.name}.{os.getpid()}-{secrets.token_hex(8)}")
        lines = [self._line(file, *found) for file, found in known.items() if file.exists()]
        aside.write_bytes(b"".join(lines))
        aside.replace(self.file)

    def _line(self, file: Path, identity: _Identity, digest: str) -> bytes:
        return json.dumps([self.boot, str(file), identity, digest]).encode() + b"\n"


class FileDigests:
    """Hashes files; one that has not changed since (same inode, size and times) is not read again. Safe to use from several threads.

    settled_s: a file that was written less than so long ago is not remembered: another write within the clock's tick would not show.
    record: what earlier processes have hashed, and where the next ones find what this one has; None: each begins anew.
    """

    def __init__(self, settled_s: float = _SETTLED_S, record: DigestRecord | None = None) -> None:
        self._settled_ns = settled_s * 1e9
        self._record = record
        self._known: _Known | None = None  # until the record has been read
        self._by_identity: dict[_Identity, str] = {}  # of hard links, whichever of them was hashed
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
                    self._by_identity = dict(self._known.values())
                known = self._known.get(file)
                other = self._by_identity.get(identity)
            if known is not None and known[0] == identity:
                return known[1]
            if other is not None:
                return other
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if time.time_ns() - status.st_ctime_ns >= self._settled_ns:
            self._remember(file, identity, digest)
        return digest

    def _remember(self, file: Path, identity: _Identity, digest: str) -> None:
        with self._lock:
            if self._known is not None:
                self._known[file] = (identity, digest)
            self._by_identity[identity] = digest
        if self._record is not None:
            self._record.add(file, identity, digest)


def _parse(line: bytes) -> tuple[str, str, _Identity, str]:
    """Return boot, path, identity and digest. Raises ValueError unless the line is one of ours."""
    fields = parse(line)
    if not isinstance(fields, list) or len(fields) != 4:
        raise ValueError("not four fields")
    boot, path, identity, digest = fields
    if not all(isinstance(text, str) for text in (boot, path, digest)) or "\0" in path:
        raise ValueError("not texts")
    if not isinstance(identity, list) or not all(type(number) is int for number in identity):
        raise ValueError("not integers")
    return boot, path, tuple(identity), digest
