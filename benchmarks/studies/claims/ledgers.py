"""The study's ledgers: files of entries by key, one entry a line, replaced as a whole, so that no reader sees half of one.

Several processes work on one folder: a unit belongs to the process that holds its lock, which ends with the process.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.studies.claims.unit import Entry, Settings, Unit
from tuning.errors import TuningError

_FORMAT = "espalier-claims/1"


class DamagedLedger(TuningError):
    """A file of entries cannot be read."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path} is no ledger of this study, or damaged: {reason}.")


class Ledgers:
    """Entries of one study. folder: of the files, is made. work: for locks and for what is half done; "
    "nothing of it is to be kept."""

    def __init__(self, folder: Path, settings: Settings, work: Path | None = None) -> None:
        self.folder = folder
        self.settings = settings
        self.work = work or folder / "work"
        folder.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[str, Entry]:
        """Return all entries by key. Raises DamagedLedger."""
        return {key: entry for path in sorted(self.folder.glob("*.json")) for key, entry in _read(path).items()}

    def find(self, unit: Unit) -> Entry | None:
        """Return what the unit gave, if it was done."""
        return _read(self._path(unit)).get(unit.key(self.settings))

    def add(self, entry: Entry) -> None:
        """Write an entry down; it is on the disk when this returns."""
        path = self._path(entry.unit)
        with self._locked(f"{path.stem}.file", wait=True):
            entries = _read(path) | {entry.unit.key(self.settings): entry}
            _replace(path, entries)

    @contextmanager
    def claim(self, unit: Unit) -> Iterator[bool]:
        """Hold the unit for this process; gives whether it was free."""
        with self._locked(unit.key(self.settings), wait=False) as free:
            yield free

    @contextmanager
    def wait_for(self, unit: Unit) -> Iterator[None]:
        """Hold the unit as soon as no other process does."""
        with self._locked(unit.key(self.settings), wait=True):
            yield

    def scratch(self, unit: Unit, suffix: str) -> Path:
        """Return a file for what the unit has half done."""
        self.work.mkdir(parents=True, exist_ok=True)
        return self.work / f"{unit.key(self.settings)}{suffix}"

    def _path(self, unit: Unit) -> Path:
        task = unit.task.replace(":", "-").replace("/", "-")
        return self.folder / f"{'-'.join(part for part in (unit.kind, task) if part)}.json"

    @contextmanager
    def _locked(self, name: str, *, wait: bool) -> Iterator[bool]:
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / f"{name}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError:
                yield False
                return
            yield True


def _read(path: Path) -> dict[str, Entry]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise DamagedLedger(path, f"its format is {content['format']!r}, not {_FORMAT!r}")
        return {key: _entry(fields) for key, fields in content["entries"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedLedger(path, error) from error


def _entry(fields: Mapping[str, Any]) -> Entry:
    return Entry(**{**fields, "unit": Unit(**fields["unit"])})


def _replace(path: Path, entries: Mapping[str, Entry]) -> None:
    lines = [f"{json.dumps(key)}: {json.dumps(asdict(entries[key]), separators=(',', ':'))}" for key in sorted(entries)]
    text = f'{{"format": {json.dumps(_FORMAT)}, "entries": {{\n' + ",\n".join(lines) + "\n}}\n"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise
