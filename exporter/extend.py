"""Adds tasks to a repository that is there: what is there stays as it is, as far as it is asked to."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.analysis import Analysis, Progress
from exporter.aside import Waiting, silent
from exporter.check import check_names, check_output_names
from exporter.choose import CutOptions
from exporter.describe import describe_segment, describe_steps, describe_task
from exporter.errors import TaskExists
from exporter.existing import Existing, read_existing
from exporter.export import check_parity, write_segments
from exporter.parity import ParityChecker, check_error, relative_error, sample_rows
from exporter.planning import SharingPlan, make_sharing_plan
from exporter.reuse import Missed, keep_segments, missed_sharing
from exporter.sources import Sources
from exporter.write import Change, changed_whole, write_all_tasks, write_models
from serving.repository import Repository, Task


@dataclass(frozen=True)
class AddOptions:
    """recut: existing cuts may move where that lets more be shared; otherwise every segment that is there stays.

    replace: tasks of the same names are replaced. parity_limit: as in ExportOptions.
    """

    recut: bool = False
    replace: bool = False
    parity_limit: float = 1e-4


@dataclass(frozen=True)
class AddReport:
    """What was added.

    kept, new: segments that stayed, and that came. missed: per new task, what it shares but computes itself for want of a cut.
    parity_errors: of the new tasks against their whole models, and of recut tasks against what they were before.
    """

    repository: Repository
    plan: SharingPlan
    kept: tuple[str, ...]
    new: tuple[str, ...]
    missed: Mapping[str, Missed]
    parity_errors: Mapping[str, float]
    remarks: Mapping[str, str]


def add_tasks(
    path: Path,
    sources: Sources,
    options: AddOptions,
    progress: Progress = lambda what, done, total: None,
    waiting: Waiting = silent,
) -> AddReport:
    """Add the tasks of `sources` to the repository at `path`. `progress(what, done, total)` is called as work gets done.

    Segments that no task uses any more stay until `espalier gc`. Raises RepositoryError when `path` is no repository, ExportError
    otherwise; then the repository is as it was.
    """
    check_names(sources.tasks)
    with changed_whole(path, waiting) as change, tempfile.TemporaryDirectory(prefix="espalier-") as scratch:
        old = _without(change.repository, sources.tasks, options.replace)
        analysis = Analysis(Path(scratch))
        existing = read_existing(old, analysis.store)
        analysis.adopt(existing, old)
        analysis.read(sources, progress)
        new = [analysis.tasks[name] for name in sources.tasks]
        cuts = CutOptions("exact", also_cut=existing.cuts) if options.recut else keep_segments(existing, new)
        names = {segment.digest: segment.name for segment in change.repository.segments.values()}
        plan = make_sharing_plan([*existing.chains.values(), *new], analysis.backbone, cuts, names)
        tasks = [_task(name, old, existing, plan, analysis) for name in plan.tasks]
        check_output_names(tasks)
        repository = _write(change, tasks, plan, analysis, progress)
        errors = check_parity(repository, analysis, list(sources.tasks), options.parity_limit, progress)
        errors |= _check_recut(old, repository, options.parity_limit)
    kept = tuple(name for name in plan.segments if name in change.repository.segments)
    missed = {} if options.recut else {chain.name: missed_sharing(existing, cuts, chain) for chain in new}
    return AddReport(
        replace(repository, path=path),
        plan,
        kept,
        tuple(name for name in plan.segments if name not in kept),
        missed,
        errors,
        {name: remark for name, remark in analysis.remarks().items() if name in sources.tasks},
    )


def _without(repository: Repository, names: Collection[str], replacing: bool) -> Repository:
    """Return `repository` without the tasks `names`. Raises TaskExists if there are such and they must not be replaced."""
    for name in names:
        if name in repository.tasks and not replacing:
            raise TaskExists(name)
    return replace(repository, tasks={name: task for name, task in repository.tasks.items() if name not in names})


def _write(change: Change, tasks: Sequence[Task], plan: SharingPlan, analysis: Analysis, progress: Progress) -> Repository:
    before = change.repository
    for name in before.segments:
        change.keep(name)
    coming = [planned for name, planned in plan.segments.items() if name not in before.segments]
    write_segments(coming, analysis, change.folder, progress)
    unchanged = [task.name for task in tasks if task == before.tasks.get(task.name)]
    for name in unchanged:
        change.keep(name)
    changed = {task.name: task for task in tasks if task.name not in unchanged}
    write_models(change.folder, {planned.name: describe_segment(planned, _rows(before)) for planned in coming}, changed)
    return write_all_tasks(change.folder, tasks, plan.cuts_left_out or before.cuts_left_out)


def _task(name: str, old: Repository, existing: Existing, plan: SharingPlan, analysis: Analysis) -> Task:
    if name in old.tasks:
        return replace(old.tasks[name], steps=describe_steps(existing.chains[name], plan.tasks[name]))
    return describe_task(analysis.tasks[name], plan.tasks[name], analysis.models[name], _rows(old))


def _rows(repository: Repository) -> int:
    return min(segment.max_batch_rows for segment in repository.segments.values())


def _check_recut(old: Repository, new: Repository, limit: float) -> dict[str, float]:
    """Return the errors of tasks whose steps changed, against their old steps. Raises ParityError."""
    before, after, errors = ParityChecker(old), ParityChecker(new), {}
    for name, task in old.tasks.items():
        if task.steps == new.tasks[name].steps:
            continue
        inputs = [sample_rows(spec, 4, seed) for seed, spec in enumerate(task.inputs)]
        pairs = zip(after.compose(name, inputs), before.compose(name, inputs), strict=True)
        errors[name] = max(relative_error(found, expected) for found, expected in pairs)
        check_error(new, name, errors[name], limit)
    return errors
