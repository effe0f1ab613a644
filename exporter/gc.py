"""Removes the segments that no task refers to any more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from exporter.aside import Waiting, recover, silent, tidy
from exporter.write import Change, changed_whole
from serving.repository import ALL_TASKS, Repository, Task, read_repository


def unused_segments(repository: Repository, tasks: Iterable[Task] | None = None) -> dict[str, int]:
    """Return the segments that none of `tasks` (by default: the repository's) runs, by name, with the bytes of their files."""
    tasks = repository.tasks.values() if tasks is None else tasks
    used = {step.segment for task in tasks for step in task.steps}
    return {name: _bytes_in(repository.path / name) for name in sorted(repository.segments) if name not in used}


def collect_garbage(repo: Path, *, dry_run: bool = False, waiting: Waiting = silent) -> Mapping[str, int]:
    """Remove the segments that no task of the repository at `repo` refers to; return them with the bytes of their files.

    What a killed writer left beside the repository goes, too. Everything else stays the very same files, and where nothing is
    unused, nothing of the repository is touched. dry_run: only return them.
    Raises RepositoryError when `repo` is no repository, and ExportError when it cannot be written; then nothing was changed.
    """
    recover(repo, waiting)
    unused = unused_segments(read_repository(repo))
    if dry_run:
        return unused
    if not unused:
        tidy(repo, waiting)
        return unused
    with changed_whole(repo, waiting) as change:
        unused = unused_segments(change.repository)
        keep_but(change, {*unused})
    return unused


def keep_but(change: Change, dropped: set[str]) -> None:
    """Keep all segments and tasks and `all_tasks`, as they are, but those in `dropped`."""
    for name in (*change.repository.segments, *change.repository.tasks, ALL_TASKS):
        if name not in dropped and (change.repository.path / name).is_dir():
            change.keep(name)


def _bytes_in(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
