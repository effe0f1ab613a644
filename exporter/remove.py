"""Removes tasks from a repository."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from contract.errors import UnknownTask
from contract.repository import ALL_TASKS, Repository
from contract.repository.write import Waiting, changed, silent
from exporter.errors import LastTask
from exporter.gc import unused_segments


@dataclass(frozen=True)
class Removal:
    """What a removal left: the repository, and the segments that no task uses now, with the bytes of their files.

    collected: whether those segments are gone, too; otherwise `exporter.gc` removes them.
    """

    repository: Repository
    unused: Mapping[str, int]
    collected: bool


def remove_tasks(repo: Path, names: Iterable[str], *, gc: bool = False, waiting: Waiting = silent) -> Removal:
    """Remove the tasks `names` from the repository at `repo`, in one step with the segments that are not used then, if `gc`.

    The segments and the other tasks' folders stay the very same files; `all_tasks` is written anew.
    Raises UnknownTask, LastTask when none would be left, RepositoryError when `repo` is no repository, and ExportError when it
    cannot be written; then nothing was changed.
    """
    names = set(names)
    with changed(repo, waiting) as change:
        tasks = change.repository.tasks
        unknown = sorted(names - tasks.keys())
        if unknown:
            raise UnknownTask(unknown[0], sorted(tasks))
        rest = {name: task for name, task in tasks.items() if name not in names}
        if not rest:
            raise LastTask(repo)
        unused = unused_segments(change.repository, rest.values())
        change.keep_all_but({*names, ALL_TASKS, *(unused if gc else ())})
        repository = change.write_all_tasks(rest.values())
    return Removal(replace(repository, path=repo), unused, gc)
