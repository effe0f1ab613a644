"""Reads a model repository from disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from contract.errors import RepositoryError
from contract.repository.check import check_repository
from contract.repository.config import (
    ALL_TASKS,
    COPY,
    KIND,
    LABELS_FILE,
    kind_of,
    parse_canary,
    parse_cut_rule,
    parse_cuts_left_out,
    parse_digest_version,
    parse_kept,
    parse_not_shared,
    parse_origin,
    parse_segment,
    parse_task,
)
from contract.repository.files import CANARY as CANARY
from contract.repository.files import CONFIG_FILE as CONFIG_FILE
from contract.repository.files import PREVIOUS as PREVIOUS
from contract.repository.files import ModelFiles, PlainFiles, Texts, decode, read_files, read_plain_files
from contract.repository.model import DEFAULT_CUT_RULE, Repository, Segment, Task
from contract.repository.not_shared import NotShared, of_tasks
from contract.repository.origin import Origin
from contract.repository.parsed_configs import ParsedConfigs

# Each attempt but the last met a writer that replaced the repository in these very milliseconds.
_ATTEMPTS = 100


@dataclass(frozen=True)
class _AllTasks:
    """What is asked of the ensemble of all tasks; the rest follows from the tasks."""

    cuts_left_out: tuple[str, ...] = ()
    cut_rule: str = DEFAULT_CUT_RULE
    digest_version: int = 1
    not_shared: tuple[NotShared, ...] = ()
    origin: Origin = Origin()  # noqa: RUF009  # frozen


@dataclass(frozen=True)
class _Copy:
    """A model that only gives a value another name."""


_Model = Segment | Task | _AllTasks | _Copy | None  # None: a model that espalier did not write
# Reads such a model, as a task that is one segment. Raises RepositoryError with the reason why it cannot be served, or OSError.
ReadPlain = Callable[[PlainFiles], tuple[Segment, Task]]


def read_repository(path: str | Path) -> Repository:
    """Return what the model repository at `path` holds. Models that espalier did not write are passed over.

    A repository that is replaced as a whole meanwhile is read again: what is returned was one of its states, never a mixture.
    Raises RepositoryError when `path` is not a folder, holds no task, or its models do not fit together.
    """
    return RepositoryReader(path).read()


def read_origin(path: Path) -> Origin:
    """Return what the export of the repository at `path` was told; nothing where there is none. Raises RepositoryError."""
    try:
        files = read_files(path / ALL_TASKS)
    except (RepositoryError, OSError):
        return Origin()
    model = None if files is None else _parse(files, ParsedConfigs(None, path))
    return model.origin if isinstance(model, _AllTasks) else Origin()


class RepositoryReader:
    """Reads the repository at `path` as often as it is asked. Not to be used from several threads at once.

    read_plain: reads what espalier did not write, too, and what it refuses is `unserved`; None: such models are passed over.
    configs: a folder in which configurations are kept as they were parsed, for the next process; None: nowhere.
    A model whose files say what they said the last time is not parsed again: meanwhile no other thread can run Python.
    """

    def __init__(self, path: str | Path, read_plain: ReadPlain | None = None, configs: Path | None = None) -> None:
        self._path = Path(path)
        self._configs = ParsedConfigs(configs, self._path)
        self._read_plain = read_plain
        self._parsed: dict[ModelFiles, _Model] = {}
        self._plain: dict[PlainFiles, tuple[Segment, Task]] = {}
        self._ours: frozenset[str] = frozenset()  # the last time
        self._all_tasks: _AllTasks | None = None

    def at(self, path: Path) -> RepositoryReader:
        """Return a reader of the repository at `path`, by which what is the same there is not parsed again."""
        other = RepositoryReader(path, self._read_plain)
        other._parsed = self._parsed
        return other

    def read(self) -> Repository:
        """Return what is there now, as `read_repository` does; what `all_tasks` says is that of the first time."""
        for _ in range(_ATTEMPTS):
            with _pinned(self._path) as is_same:
                try:
                    repository = self._read()
                except (RepositoryError, FileNotFoundError):
                    if is_same():
                        raise
                    continue
                if is_same():
                    self._configs.keep()
                    return repository
        raise RepositoryError(f"{self._path} is replaced again and again while it is read; read it when nobody writes.")

    def _read(self) -> Repository:
        parsed: dict[ModelFiles, _Model] = {}
        for folder in sorted(self._path.iterdir()):
            # With a thousand tasks their ensemble, which every deploy changes, takes a second; no answer depends on it.
            found = None if folder.name == ALL_TASKS and self._all_tasks else self._model(folder)
            if found is not None:
                parsed[found[0]] = found[1]
        self._parsed = parsed
        models = {files.name: model for files, model in parsed.items()}
        segments = {name: model for name, model in models.items() if isinstance(model, Segment)}
        tasks = {name: model for name, model in models.items() if isinstance(model, Task)}
        self._all_tasks = next((model for model in models.values() if isinstance(model, _AllTasks)), self._all_tasks)
        self._ours = frozenset(name for name, model in models.items() if model is not None) | (
            {ALL_TASKS} if self._all_tasks else set()
        )
        told = self._all_tasks or _AllTasks()
        copies = tuple(name for name, model in models.items() if isinstance(model, _Copy))
        repository = Repository(
            self._path,
            segments,
            tasks,
            told.cuts_left_out,
            copies,
            told.cut_rule,
            digest_version=told.digest_version,
            not_shared=of_tasks(told.not_shared, tasks),
            origin=told.origin,
        )
        check_repository(repository)
        if self._read_plain is not None:
            repository = self._with_plain(repository, self._read_plain)
        if not repository.tasks:
            raise RepositoryError(_nothing_to_serve(repository))
        return repository

    def _model(self, folder: Path) -> tuple[ModelFiles, _Model] | None:
        """Return the files in `folder` and the model that they describe; None where there is no configuration."""
        files = None
        try:
            files = read_files(folder)
            return (
                None if files is None else (files, self._parsed[files] if files in self._parsed else _parse(files, self._configs))
            )
        except (RepositoryError, OSError):
            is_ours = folder.name in {*self._ours, ALL_TASKS} or (files is not None and KIND.encode() in files.current.config)
            if is_ours or self._read_plain is None:
                raise
            return None  # what is wrong is said where it is read as a plain model

    def _with_plain(self, repository: Repository, read_plain: ReadPlain) -> Repository:
        """Return `repository` with the models that espalier did not write, each a task of its own, as far as they can be served."""
        known: dict[PlainFiles, tuple[Segment, Task]] = {}
        unserved: dict[str, str] = {}
        for folder in sorted(self._path.iterdir()):
            try:
                files = None if folder.name in self._ours else read_plain_files(folder)
                if files is not None:
                    known[files] = self._plain[files] if files in self._plain else read_plain(files)
            except (RepositoryError, OSError) as error:
                unserved[folder.name] = f"It cannot be read ({error.strerror})." if isinstance(error, OSError) else str(error)
        self._plain = known
        segments = {segment.name: segment for segment, _ in known.values()}
        tasks = {task.name: task for _, task in known.values()}
        return replace(
            repository, segments={**repository.segments, **segments}, tasks={**repository.tasks, **tasks}, unserved=unserved
        )


def _nothing_to_serve(repository: Repository) -> str:
    if not repository.unserved:
        return f"{repository.path} holds no task of espalier; give the folder that `espalier export` wrote."
    names: dict[str, list[str]] = {}
    for name, reason in repository.unserved.items():
        names.setdefault(reason, []).append(name)
    reasons = " ".join(f"{', '.join(group)}: {reason}" for reason, group in names.items())
    return f"{repository.path} holds no model that can be served. {reasons}"


@contextmanager
def _pinned(folder: Path) -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether `folder` is still the folder that it is now.

    It is held open, because the inode number of a folder that is deleted may be that of the next one.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RepositoryError(f"{folder} is not a folder; give the folder that `espalier export` wrote.") from error
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


def _parse(files: ModelFiles, configs: ParsedConfigs) -> _Model:
    """Return what `files` describe. Raises RepositoryError."""
    config = _config(files.current, files.name, configs)
    kind = kind_of(config)
    if kind == "segment":
        return parse_segment(config, _version(files))
    if kind == "task":
        task = parse_task(config, _labels(files.current), _version(files))
        if files.previous is not None:
            task = replace(task, previous=parse_kept(_config(files.previous, task.name, configs), _labels(files.previous)))
        if files.canary is not None:
            task = replace(task, canary=parse_canary(_config(files.canary, task.name, configs), _labels(files.canary)))
        return task
    if kind == ALL_TASKS:
        return _AllTasks(
            parse_cuts_left_out(config),
            parse_cut_rule(config),
            parse_digest_version(config),
            parse_not_shared(config),
            parse_origin(config),
        )
    return _Copy() if kind == COPY else None


def _config(texts: Texts, name: str, configs: ParsedConfigs) -> Any:
    """Return the configuration in `texts`, that of a model in the folder `name`, after which ours must be named, if at all."""
    where = f"{texts.where}/{CONFIG_FILE}"
    config = configs.parse(texts.config, where)
    if kind_of(config) and config.name not in ("", name):
        owner = "folder" if texts.where == name else "task"
        raise RepositoryError(f"{where} is named {config.name!r}; it must be named like its {owner}.")
    config.name = name
    return config


def _version(files: ModelFiles) -> str:
    if not files.version:
        raise RepositoryError(f"{files.name} has no version folder (such as {files.name}/1).")
    return files.version


def _labels(texts: Texts) -> tuple[str, ...]:
    text = decode(texts.labels or b"", f"{texts.where}/{LABELS_FILE}")
    return tuple(text.removesuffix("\n").split("\n")) if text else ()
