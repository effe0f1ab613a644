"""The versions of tasks: one that comes keeps the one before it, or is tried as a canary. Each change is one step.

Deploying is adding with leave to replace (`exporter.add`); undeploying is removing (`exporter.remove`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from contract.errors import UnknownTask
from contract.repository import ALL_TASKS, Repository, Task
from contract.repository.tokenizers import tokenizer_files
from contract.repository.versions import promoted, rolled_back
from contract.repository.write import Waiting, changed, silent, write_models

if TYPE_CHECKING:
    from exporter.add import AddReport
    from exporter.build.analysis import Progress
    from exporter.precision.examples import PrecisionOptions
    from exporter.sources.task_model import Sources


@dataclass(frozen=True)
class VersionChange:
    """What a task was before (None: not there) and is after a change."""

    before: Task | None
    after: Task


@dataclass(frozen=True)
class Deployment:
    """What a change of versions left: the repository, per task that it was about what became of it, and what was added, if any."""

    repository: Repository
    changes: Mapping[str, VersionChange]
    added: AddReport | None = None


def deploy(
    repo: Path,
    sources: Sources,
    *,
    canary: float | None = None,
    coupled: bool = False,
    precision: PrecisionOptions | None = None,
    snap: float | None = None,
    progress: Progress = lambda what, done, total: None,
    waiting: Waiting = silent,
) -> Deployment:
    """Let the models of `sources` be the current versions of their tasks in the repository at `repo`.

    A task that is there gets the next version number, and its old version is kept for `rollback`; its canary, and the version that
    was kept until now, go. A model that is current already changes nothing. canary: the current versions stay, and the models answer
    that share of the requests, in (0, 1), beside them; deploying the same canary again only changes its share. coupled, precision:
    as in ExportOptions, snap: as in AddOptions; versions that are there are never snapped.

    Every model is checked as `exporter.add.add_tasks` does. Raises what that does; then nothing was changed.
    """
    from exporter.add import AddOptions, add_tasks  # to go back and forth between versions takes no exporter
    from exporter.precision.examples import PrecisionOptions

    asked = precision or PrecisionOptions()
    options = AddOptions(replace=True, canary=canary, coupled=coupled, snap=snap, precision=asked)
    report = add_tasks(repo, sources, options, progress, waiting)
    after = report.repository.tasks
    return Deployment(
        report.repository, {name: VersionChange(report.before.get(name), after[name]) for name in sources.tasks}, report
    )


def rollback(repo: Path, name: str, *, waiting: Waiting = silent) -> Deployment:
    """Take the canary of task `name` away or, if it has none, let its current and its previous version change places.

    No model is written or exported. Raises UnknownTask, NothingToRollBackTo, RepositoryError when `repo` is no repository, and
    ExportError when it cannot be written; then nothing was changed.
    """
    return _change(repo, name, rolled_back, waiting)


def promote(repo: Path, name: str, *, waiting: Waiting = silent) -> Deployment:
    """Let the canary of task `name` be its current version, and the current one the previous.

    Raises UnknownTask, NoCanary, and otherwise what `rollback` does; then nothing was changed.
    """
    return _change(repo, name, promoted, waiting)


def _change(repo: Path, name: str, become: Callable[[Task], Task], waiting: Waiting) -> Deployment:
    with changed(repo, waiting) as change:
        tasks = change.repository.tasks
        if name not in tasks:
            raise UnknownTask(name, sorted(tasks))
        after = become(tasks[name])
        change.keep_all_but({name, ALL_TASKS})
        write_models(change.folder, {}, {name: after}, tokenizer_files(change.repository))
        repository = change.write_all_tasks({**tasks, name: after}.values())
    return Deployment(replace(repository, path=repo), {name: VersionChange(tasks[name], after)})
