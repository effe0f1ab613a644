"""What stands in a model's folder, as far as it says what the model is."""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from contract.errors import RepositoryError
from contract.repository.config import LABELS_FILE

CONFIG_FILE = "config.pbtxt"
# Folders of a task for the versions beside the current one. Triton passes over subfolders that are not numbers.
PREVIOUS, CANARY = "previous", "canary"


@dataclass(frozen=True)
class Texts:
    """A configuration and the labels beside it, as bytes. labels: None where there is no such file. where: for people."""

    where: str
    config: bytes
    labels: bytes | None


@dataclass(frozen=True)
class ModelFiles:
    """All that the parsing of the model in folder `name` depends on: equal files, equal model.

    version: the highest number among its folders, "" where there is none. previous, canary: the versions kept beside the current one.
    """

    name: str
    version: str
    current: Texts
    previous: Texts | None = None
    canary: Texts | None = None


@dataclass(frozen=True)
class PlainFiles:
    """All that the reading of a model depends on that espalier did not export: equal files, equal model.

    config: its config.pbtxt as bytes, None where there is none. versions: its folders that are numbers, ascending. facts: of each file
    in it and in its versions: path below `folder`, size, time of writing and inode.
    """

    folder: Path
    config: bytes | None
    versions: tuple[int, ...]
    facts: tuple[tuple[str, int, int, int], ...]

    @property
    def name(self) -> str:
        """Return the name of the model, which is that of its folder."""
        return self.folder.name

    @cached_property
    def paths(self) -> frozenset[str]:
        """Return the paths of its files, below its folder."""
        return frozenset(path for path, *_ in self.facts)


def read_plain_files(folder: Path) -> PlainFiles | None:
    """Return the files of a model that espalier did not export; None for what is hidden, or has neither a configuration nor a version.

    Raises RepositoryError, OSError.
    """
    if folder.name.startswith(".") or not folder.is_dir():
        return None
    config = _content(folder / CONFIG_FILE, folder.name)
    versions = sorted({int(entry.name) for entry in folder.iterdir() if _is_version(entry.name) and entry.is_dir()})
    if config is None and not versions:
        return None
    files = [*folder.iterdir(), *(file for version in versions for file in (folder / str(version)).rglob("*"))]
    return PlainFiles(folder, config, tuple(versions), tuple(_facts(file, folder) for file in sorted(files) if file.is_file()))


def _facts(file: Path, folder: Path) -> tuple[str, int, int, int]:
    status = file.stat()
    return str(file.relative_to(folder)), status.st_size, status.st_mtime_ns, status.st_ino


def _is_version(name: str) -> bool:
    """Whether Triton takes a folder of this name for a version."""
    return name.isascii() and name.isdigit() and (name == "0" or not name.startswith("0"))


def read_files(folder: Path) -> ModelFiles | None:
    """Return the files of the model in `folder`, None where there is no configuration. Raises RepositoryError, OSError."""
    if not folder.is_dir():
        return None
    with os.scandir(folder) as entries:
        folders = {entry.name: entry.is_dir() for entry in entries}
    current = _texts(folder, folder.name, folders)
    if current is None:
        return None
    kept = {kind: _texts(folder / kind, f"{folder.name}/{kind}") for kind in (PREVIOUS, CANARY) if folders.get(kind)}
    version = max((int(name) for name, is_folder in folders.items() if is_folder and _is_version(name)), default="")
    return ModelFiles(folder.name, str(version), current, **kept)


def decode(text: bytes, where: str) -> str:
    """Return `text`. Raises RepositoryError, calling it `where`, unless it is UTF-8."""
    try:
        return text.decode("utf-8")  # not read_text: only "\n" ends a line
    except UnicodeDecodeError as error:
        raise _unreadable(where) from error


def _texts(folder: Path, where: str, there: Container[str] = (CONFIG_FILE, LABELS_FILE)) -> Texts | None:
    """there: the files that may be in `folder`; with a thousand tasks, not to look for the others is worth it."""
    config = _content(folder / CONFIG_FILE, where) if CONFIG_FILE in there else None
    labels = _content(folder / LABELS_FILE, where) if config is not None and LABELS_FILE in there else None
    return None if config is None else Texts(where, config, labels)


def _content(file: Path, where: str) -> bytes | None:
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(f"{where}/{file.name}") from error


def _unreadable(where: str) -> RepositoryError:
    return RepositoryError(f"{where} cannot be read as UTF-8 text.")
