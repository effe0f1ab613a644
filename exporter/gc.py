"""Removes the segments that no task refers to any more, in any of its versions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from contract.repository import Repository, Task, read_repository
from contract.repository.tokenizers import tokenizer_files
from contract.repository.versions import without_previous
from contract.repository.write import Waiting, changed, recover, silent, tidy, write_models


def unused_segments(repository: Repository, tasks: Iterable[Task] | None = None) -> dict[str, int]:
    """Return the segments that none of `tasks` (by default: the repository's) runs, by name, with the bytes that go with their files.

    A version that a task keeps counts like the current one.
    """
    tasks = repository.tasks.values() if tasks is None else tasks
    used = {step.segment for task in tasks for version in task.versions for step in version.steps}
    kept = {status.st_ino for name in used & repository.segments.keys() for status in _linked_files(repository, name)}
    return {name: _bytes_in(repository.path / name, kept) for name in sorted(repository.segments) if name not in used}


def collect_garbage(
    repo: Path, *, dry_run: bool = False, drop_previous: bool = False, waiting: Waiting = silent
) -> Mapping[str, int]:
    """Remove the segments that no task of the repository at `repo` refers to; return them with the bytes of their files.

    What a killed writer left beside the repository goes, too. Everything else stays the very same files, and where nothing is
    unused, nothing of the repository is touched. dry_run: only return them. drop_previous: let go of the versions that are kept for
    a rollback first, in the same step; canaries stay.
    Raises RepositoryError when `repo` is no repository, and ExportError when it cannot be written; then nothing was changed.
    """
    recover(repo, waiting)
    repository = read_repository(repo)
    tasks = _staying(repository, drop_previous)
    unused = unused_segments(repository, tasks.values())
    if dry_run:
        return unused
    if not unused and tasks == repository.tasks:
        tidy(repo, waiting)
        return unused
    with changed(repo, waiting) as change:
        tasks = _staying(change.repository, drop_previous)
        unused = unused_segments(change.repository, tasks.values())
        rewritten = {name: task for name, task in tasks.items() if task != change.repository.tasks[name]}
        change.keep_all_but({*unused, *rewritten})
        write_models(change.folder, {}, rewritten, tokenizer_files(change.repository))
    return unused


def _staying(repository: Repository, drop_previous: bool) -> Mapping[str, Task]:
    if not drop_previous:
        return repository.tasks
    return {name: without_previous(task) for name, task in repository.tasks.items()}


def _linked_files(repository: Repository, segment: str) -> Iterator[os.stat_result]:
    """Yield what the system says of the data files of `segment`, which others may have, too."""
    for name in repository.segments[segment].weight_files:
        with suppress(FileNotFoundError):
            yield repository.model_file(segment).with_name(name).stat()


def _bytes_in(folder: Path, counted: set[int]) -> int:
    """Return the bytes of the files in `folder` whose inodes are not `counted` yet, and count them."""
    found = [status for file in folder.rglob("*") if file.is_file() and (status := file.stat()).st_ino not in counted]
    counted.update(status.st_ino for status in found)
    return sum(status.st_size for status in found)
