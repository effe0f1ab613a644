"""Reads a model repository from disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving.errors import RepositoryError
from serving.repository.check import check_repository
from serving.repository.config import (
    ALL_TASKS,
    LABELS_FILE,
    kind_of,
    parse_canary,
    parse_cuts_left_out,
    parse_kept,
    parse_segment,
    parse_task,
    parse_text,
)
from serving.repository.model import Repository, Segment, Task

CONFIG_FILE = "config.pbtxt"
# Folders of a task for the versions beside the current one. Triton passes over subfolders that are not numbers.
PREVIOUS, CANARY = "previous", "canary"
# Each attempt but the last met a writer that replaced the repository in these very milliseconds.
_ATTEMPTS = 100


def read_repository(path: str | Path) -> Repository:
    """Return what the model repository at `path` holds. Models that espalier did not write are passed over.

    A repository that is replaced as a whole meanwhile is read again: what is returned was one of its states, never a mixture.
    Raises RepositoryError when `path` is not a folder, holds no task, or its models do not fit together.
    """
    path = Path(path)
    for _ in range(_ATTEMPTS):
        with _pinned(path) as is_same:
            try:
                repository = _read(path)
            except (RepositoryError, FileNotFoundError):
                if is_same():
                    raise
                continue
            if is_same():
                return repository
    raise RepositoryError(f"{path} is replaced again and again while it is read; read it when nobody writes.")


@contextmanager
def _pinned(folder: Path) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether `folder` is still the folder that it is now.

    It is held open, because the inode number of a folder that is deleted may be that of the next one.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RepositoryError(f"{folder} is not a folder; give the folder that `espalier export --out` wrote.") from error
    except OSError as error:
        raise RepositoryError(f"{folder} cannot be read ({error.strerror}).") from error

    def is_same() -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), folder.stat())
        except FileNotFoundError:
            return False

    try:
        yield is_same
    finally:
        os.close(descriptor)


def _read(path: Path) -> Repository:
    segments: dict[str, Segment] = {}
    tasks: dict[str, Task] = {}
    cuts_left_out: tuple[str, ...] = ()
    for folder, config in _configs(path):
        kind = kind_of(config)
        if kind == "segment":
            segments[folder.name] = parse_segment(config, _latest_version(folder))
        elif kind == "task":
            tasks[folder.name] = _with_kept(folder, parse_task(config, _labels(folder), _latest_version(folder)))
        elif kind == ALL_TASKS:
            cuts_left_out = parse_cuts_left_out(config)
    if not tasks:
        raise RepositoryError(f"{path} holds no task of espalier; give the folder that `espalier export --out` wrote.")
    repository = Repository(path, segments, tasks, cuts_left_out)
    check_repository(repository)
    return repository


def _with_kept(folder: Path, task: Task) -> Task:
    """Return `task`, whose folder is `folder`, with the versions that are kept in it."""
    previous, canary = folder / PREVIOUS, folder / CANARY
    if (previous / CONFIG_FILE).is_file():
        task = replace(task, previous=parse_kept(_config(previous, of=task.name), _labels(previous, of=task.name)))
    if (canary / CONFIG_FILE).is_file():
        task = replace(task, canary=parse_canary(_config(canary, of=task.name), _labels(canary, of=task.name)))
    return task


def _configs(path: Path) -> Iterator[tuple[Path, Any]]:
    for folder in sorted(path.iterdir()):
        if (folder / CONFIG_FILE).is_file():
            yield folder, _config(folder)


def _config(folder: Path, of: str = "") -> Any:
    """Return the configuration in `folder`, named like the folder, or like the task `of` whose folder it is in."""
    where, text = _text(folder, CONFIG_FILE, of)
    config = parse_text(text, where)
    if config.name not in ("", of or folder.name):
        raise RepositoryError(f"{where} is named {config.name!r}; it must be named like its {'task' if of else 'folder'}.")
    config.name = of or folder.name
    return config


def _latest_version(folder: Path) -> str:
    versions = [int(child.name) for child in folder.iterdir() if child.is_dir() and child.name.isdigit()]
    if not versions:
        raise RepositoryError(f"{folder.name} has no version folder (such as {folder.name}/1).")
    return str(max(versions))


def _labels(folder: Path, of: str = "") -> tuple[str, ...]:
    if not (folder / LABELS_FILE).is_file():
        return ()
    _, text = _text(folder, LABELS_FILE, of)
    return tuple(text.removesuffix("\n").split("\n")) if text else ()


def _text(folder: Path, file: str, of: str) -> tuple[str, str]:
    """Return what to call `file` in a sentence, and its text."""
    where = "/".join([*([of] if of else []), folder.name, file])
    try:
        return where, (folder / file).read_bytes().decode("utf-8")  # not read_text: only "\n" ends a line
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{where} cannot be read as UTF-8 text.") from error
