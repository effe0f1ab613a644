"""Removes the segments that no task refers to any more, in any of its versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from contract.repository import Repository, Task, read_repository
from contract.repository.tokenizers import tokenizer_files
from contract.repository.versions import without_previous
from contract.repository.write import Waiting, changed, recover, silent, tidy, write_models


def unused_segments(repository: Repository, tasks: Iterable[Task] | None = None) -> dict[str, int]:
    """Return the segments that none of `tasks` (by default: the repository's) runs, by name, with the bytes of their files.

    A version that a task keeps counts like the current one.
    """
    tasks = repository.tasks.values() if tasks is None else tasks
    used = {step.segment for task in tasks for version in task.versions for step in version.steps}
    return {name: _bytes_in(repository.path / name) for name in sorted(repository.segments) if name not in used}


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


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
