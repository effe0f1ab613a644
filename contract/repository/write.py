"""Writes a model repository: whole or not at all (`contract.repository.transaction.folder` says what it promises)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from contract.errors import ForeignFiles, NameTaken, NewerDigests, NotARepository, NotWritten, OutputExists, RepositoryError
from contract.repository import ALL_TASKS, Repository, Segment, Task, read_repository
from contract.repository import model as repository_model
from contract.repository.config import (
    LABELS_FILE,
    all_tasks_config,
    copy_configs,
    kept_config,
    segment_config,
    task_config,
    to_text,
)
from contract.repository.model import DEFAULT_CUT_RULE, Rows
from contract.repository.not_shared import NotShared, of_tasks
from contract.repository.origin import Origin
from contract.repository.read import CANARY, CONFIG_FILE, PREVIOUS, RepositoryReader
from contract.repository.tokenizers import TokenizerFiles, write_tokenizers
from contract.repository.transaction.file_system import link_file as link_file
from contract.repository.transaction.file_system import link_tree as link_tree
from contract.repository.transaction.folder import Transaction, only_writer, reason
from contract.repository.transaction.folder import Waiting as Waiting
from contract.repository.transaction.folder import recover as recover
from contract.repository.transaction.folder import silent as silent
from contract.repository.transaction.folder import tidy as tidy
from contract.repository.unite import copy_model


@dataclass(frozen=True)
class Change:
    """A change of a repository under way.

    repository: its state until now, to be read. folder: where its next state is built; what espalier did not write is there already.
    """

    repository: Repository
    folder: Path
    _reader: RepositoryReader | None = field(default=None, repr=False, compare=False)

    def keep(self, model: str) -> None:
        """Take the folder of `model` over as it is: the same files, by hard links, or copies where the file system has no links.

        What is kept must not be written to, only replaced or deleted: it still is the old state's file, too.
        Raises NameTaken when `folder` holds something of that name.
        """
        if os.path.lexists(self.folder / model):
            raise NameTaken(model)
        link_tree(self.repository.path / model, self.folder / model)

    def keep_all_but(self, dropped: Collection[str]) -> None:
        """Keep all segments and tasks and `all_tasks` with what only it needs, as they are, but those in `dropped`."""
        copies = () if ALL_TASKS in dropped else self.repository.copies
        for name in (*self.repository.segments, *self.repository.tasks, *copies, ALL_TASKS):
            if name not in dropped and (self.repository.path / name).is_dir():
                self.keep(name)

    def write_all_tasks(
        self,
        tasks: Iterable[Task],
        cuts_left_out: Sequence[str] | None = None,
        cut_rule: str | None = None,
        not_shared: Sequence[NotShared] | None = None,
        origin: Origin | None = None,
    ) -> Repository:
        """Write the ensemble of all `tasks`, as below; None: as it was in the repository until now. Return what is there now."""
        before, tasks = self.repository, list(tasks)
        left_out = before.cuts_left_out if cuts_left_out is None else cuts_left_out
        apart = of_tasks(before.not_shared if not_shared is None else not_shared, [task.name for task in tasks])
        _write_all_tasks(
            self.folder, tasks, left_out, before.cut_rule if cut_rule is None else cut_rule, apart, origin or before.origin
        )
        reader = self._reader or RepositoryReader(self.folder)
        return reader.at(self.folder).read()  # checked as a server will, and what is kept has been parsed


def check_digest_version(repository: Repository) -> None:
    """Raise NewerDigests when the digests of `repository` are of a version that nobody here can compute."""
    if repository.newest_digest_version > repository_model.DIGEST_VERSION:
        raise NewerDigests(repository.path, repository.newest_digest_version, repository_model.DIGEST_VERSION)


def check_output(out: Path, force: bool) -> None:
    """Raise OutputExists, NotARepository or ForeignFiles unless `out` may be written."""
    if _is_free(out):
        return
    if not force:
        raise OutputExists(out)
    try:
        repository = read_repository(out)
    except RepositoryError as error:
        raise NotARepository(out) from error
    foreign = foreign_entries(repository)
    if foreign:
        raise ForeignFiles(out, foreign)


def _is_free(out: Path) -> bool:
    try:
        return not out.exists() or (out.is_dir() and not any(out.iterdir()))
    except OSError as error:
        raise NotWritten(f"{out} cannot be read ({reason(error)}).") from error


def foreign_entries(repository: Repository) -> list[str]:
    """Return the names of what stands in the repository's folder beside the models of espalier."""
    ours = {*repository.segments, *repository.tasks, *repository.copies, ALL_TASKS}
    return sorted(entry.name for entry in repository.path.iterdir() if entry.name not in ours)


@contextmanager
def written(out: Path, force: bool, waiting: Waiting = silent) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `out` in one step when the block ends well, and vanishes when it does not.

    There is one writer at a time: another one is waited for, which `waiting` is told, and `out` is looked at only then.
    Raises what `check_output` does, and NotWritten when the folder cannot be written; then nothing was changed.
    """
    with _writing(out, waiting) as transaction:
        check_output(out, force)
        transaction.begin()
        yield transaction.new
        transaction.commit()


@contextmanager
def changed(repo: Path, waiting: Waiting = silent) -> Iterator[Change]:
    """Yield the change of the repository at `repo`: what is built in its folder takes the place of `repo` in one step at the end.

    Models are kept by name, or written anew; what espalier did not write is kept without a word. One writer at a time, as above.
    Raises RepositoryError when `repo` is no repository, and NotWritten when it cannot be written (NewerDigests when a newer version
    wrote it); then nothing was changed.
    """
    recover(repo, waiting)
    reader = RepositoryReader(repo)
    check_digest_version(reader.read())  # before anything is made beside what is no repository
    with _writing(repo, waiting) as transaction:
        reader = reader.at(repo)
        repository = (
            reader.read()
        )  # again, because another writer may have been waited for; what is as it was is not parsed again
        check_digest_version(repository)
        transaction.begin()
        change = Change(repository, transaction.new, reader)
        for name in foreign_entries(repository):
            change.keep(name)
        yield change
        transaction.commit()


@contextmanager
def _writing(repo: Path, waiting: Waiting) -> Iterator[Transaction]:
    try:
        with only_writer(repo, waiting) as transaction:
            yield transaction
    except OSError as error:
        raise NotWritten(f"{repo} could not be written ({reason(error)}); nothing was changed.") from error


def write_configs(
    folder: Path,
    segments: Mapping[str, Segment],
    tasks: Mapping[str, Task],
    cuts_left_out: Sequence[str] = (),
    cut_rule: str = DEFAULT_CUT_RULE,
    tokenizers: TokenizerFiles = MappingProxyType({}),
    not_shared: Sequence[NotShared] = (),
    origin: Origin | None = None,
) -> Repository:
    """Write the configurations of `segments` (whose models are there already), `tasks` and all_tasks; return what is there now.

    tokenizers: those of `tasks`. Raises NameTaken when the folder of a task is there already.
    """
    write_models(folder, segments, tasks, tokenizers)
    return write_all_tasks(folder, tasks.values(), cuts_left_out, cut_rule, not_shared, origin)


def write_models(
    folder: Path,
    segments: Mapping[str, Segment],
    tasks: Mapping[str, Task],
    tokenizers: TokenizerFiles = MappingProxyType({}),
) -> None:
    """Write the configurations of `segments` (whose models are there already) and the ensembles of `tasks` into `folder`.

    The versions that a task keeps are written into its folder. tokenizers: those of all versions of `tasks`. Raises NameTaken when the
    folder of a task is there already.
    """
    tokenizers = dict(tokenizers)
    for segment in segments.values():
        _write_new(folder / segment.name / CONFIG_FILE, to_text(segment_config(segment)))
    for task in tasks.values():
        _ensemble_folder(folder, task.name, to_text(task_config(task)), task.version)
        _write_labels(folder / task.name / LABELS_FILE, task)
        if task.previous is not None:
            _write_kept(folder / task.name / PREVIOUS, task.previous, to_text(kept_config(task.previous)))
        if task.canary is not None:
            _write_kept(folder / task.name / CANARY, task.canary.task, to_text(kept_config(task.canary)))
        tokenizers |= write_tokenizers(folder, task, tokenizers)


def write_all_tasks(
    folder: Path,
    tasks: Iterable[Task],
    cuts_left_out: Sequence[str] = (),
    cut_rule: str = DEFAULT_CUT_RULE,
    not_shared: Sequence[NotShared] = (),
    origin: Origin | None = None,
) -> Repository:
    """Write the ensemble of all `tasks`, whose own folders and segments are in `folder` already; return what is there now.

    An ensemble of that name that is there is replaced.
    """
    _write_all_tasks(folder, list(tasks), cuts_left_out, cut_rule, not_shared, origin)
    return read_repository(folder)


def _write_all_tasks(
    folder: Path,
    tasks: Sequence[Task],
    cuts_left_out: Sequence[str],
    cut_rule: str,
    not_shared: Sequence[NotShared],
    origin: Origin | None,
) -> None:
    if (folder / ALL_TASKS).exists():
        shutil.rmtree(folder / ALL_TASKS)
    config = all_tasks_config(
        tasks, cuts_left_out, cut_rule, digest_version=repository_model.DIGEST_VERSION, not_shared=not_shared, origin=origin
    )
    _ensemble_folder(folder, ALL_TASKS, to_text(config))
    for task in tasks:
        _write_labels(folder / ALL_TASKS / f"{task.name}.{LABELS_FILE}", task)
    for copy, config in copy_configs(tasks).items():
        model_path(folder, copy.model).write_bytes(copy_model(copy).SerializeToString())
        _write_new(folder / copy.model / CONFIG_FILE, to_text(config))


def write_rows(folder: Path, repository: Repository, rows: Mapping[str, Rows]) -> Repository:
    """Write into the configurations of segments in `folder` whether their `rows` affect each other; return what is there now."""
    marked = {name: replace(repository.segments[name], rows=word) for name, word in rows.items()}
    for segment in marked.values():
        _write_new(folder / segment.name / CONFIG_FILE, to_text(segment_config(segment)))
    return replace(repository, segments={**repository.segments, **marked})


def model_path(folder: Path, segment: str) -> Path:
    """Return where the model of `segment` belongs, its folder made, and nothing there that the old state also holds."""
    path = folder / segment / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    return path


def _write_kept(folder: Path, task: Task, config: str) -> None:
    folder.mkdir()
    _write_new(folder / CONFIG_FILE, config)
    _write_labels(folder / LABELS_FILE, task)


def _ensemble_folder(folder: Path, name: str, config: str, version: str = "1") -> None:
    try:
        (folder / name).mkdir(parents=True)
    except FileExistsError:
        raise NameTaken(name) from None
    (folder / name / version).mkdir()  # Triton wants a version folder even of an ensemble, which keeps nothing in it
    _write_new(folder / name / CONFIG_FILE, config)


def _write_labels(file: Path, task: Task) -> None:
    if task.labels:
        _write_new(file, "".join(f"{label}\n" for label in task.labels))


def _write_new(file: Path, text: str) -> None:
    """Write a file of its own: what stands there may be a link to the old state's, which must not change."""
    file.unlink(missing_ok=True)
    file.write_text(text, encoding="utf-8")
