"""Adds tasks to a repository that is there: what is there stays as it is, as far as it is asked to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.analysis import Analysis, Progress
from exporter.aside import Waiting, silent
from exporter.chain import Chain
from exporter.check import check_names, check_output_names
from exporter.choose import CutOptions
from exporter.describe import describe_segment, describe_steps, describe_task
from exporter.errors import BadShare, DifferentAnswer, NothingBesideCanary, TaskExists
from exporter.existing import read_existing
from exporter.export import check_parity, write_segments
from exporter.parity import ParityChecker, check_error, relative_error
from exporter.planning import PlannedStep, SharingPlan, make_sharing_plan
from exporter.reuse import Missed, keep_segments, missed_sharing
from exporter.scratch import scratch_folder
from exporter.sources import Sources
from exporter.versions import all_versions, inherited, replaced, with_canary, with_steps
from exporter.wholes import SAMPLE_ROWS, answers_of_wholes, with_records
from exporter.write import Change, changed_whole, write_all_tasks, write_models
from serving.repository import Repository, Task
from serving.repository.sample import sample_inputs


@dataclass(frozen=True)
class AddOptions:
    """recut: existing cuts may move where that lets more be shared; otherwise every segment that is there stays.

    replace: tasks of the same names are replaced, and kept as their previous versions. canary: instead, the new ones become canaries
    of those, with that share of the requests. parity_limit: as in ExportOptions.
    """

    recut: bool = False
    replace: bool = False
    parity_limit: float = 1e-4
    canary: float | None = None


@dataclass(frozen=True)
class AddReport:
    """What was added.

    before: the tasks until then. kept, new: segments that stayed, and that came.
    missed: per new task, what it shares but computes itself for want of a cut.
    parity_errors: of the new tasks against their whole models, and of recut tasks against what they were before.
    inherited: per task that was there, what the new model lacks and has from the current version: preprocessing, labels.
    """

    before: Mapping[str, Task]
    repository: Repository
    plan: SharingPlan
    kept: tuple[str, ...]
    new: tuple[str, ...]
    missed: Mapping[str, Missed]
    parity_errors: Mapping[str, float]
    remarks: Mapping[str, str]
    inherited: Mapping[str, tuple[str, ...]]


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
    with changed_whole(path, waiting) as change, scratch_folder() as scratch:
        before = change.repository
        _check_places(before, sources.tasks, options)
        versions = all_versions(before.tasks, coming=sources.tasks)
        old = replace(before, tasks={name: replace(task, name=name) for name, task in versions.items()})
        analysis = Analysis(scratch)
        existing = read_existing(old, analysis.store)
        analysis.adopt(existing, old)
        analysis.read(sources, progress)
        new = [analysis.tasks[name] for name in sources.tasks]
        cuts = CutOptions("exact", also_cut=existing.cuts) if options.recut else keep_segments(existing, new)
        names = {segment.digest: segment.name for segment in before.segments.values()}
        plan = make_sharing_plan([*existing.chains.values(), *new], analysis.backbone, cuts, names)
        recut = {name: _redescribed(task, existing.chains[name], plan.tasks[name]) for name, task in versions.items()}
        coming = {name: _described(name, plan, analysis, _rows(before)) for name in sources.tasks}
        coming, taken = _inherited(before.tasks, coming)
        wholes = answers_of_wholes(coming, analysis, progress)
        coming = with_records(coming, wholes)
        tasks = _together(before.tasks, recut, coming, options.canary)
        check_output_names(version for task in tasks.values() for version in task.versions)
        repository = _write(change, [*tasks.values()], plan, analysis, progress)
        alone = replace(repository, tasks={**repository.tasks, **coming})
        errors = check_parity(alone, wholes, options.parity_limit, progress)
        errors |= _check_recut(old, replace(repository, tasks=recut), options.parity_limit)
    kept = tuple(name for name in plan.segments if name in before.segments)
    missed = {} if options.recut else {chain.name: missed_sharing(existing, cuts, chain) for chain in new}
    return AddReport(
        before.tasks,
        replace(repository, path=path),
        plan,
        kept,
        tuple(name for name in plan.segments if name not in kept),
        missed,
        errors,
        {name: remark for name, remark in analysis.remarks().items() if name in sources.tasks},
        taken,
    )


def _check_places(repository: Repository, names: Collection[str], options: AddOptions) -> None:
    """Raise ExportError unless tasks of the `names` may come as `options` say."""
    if options.canary is not None and not 0 < options.canary < 1:
        raise BadShare(options.canary)
    for name in names:
        if options.canary is not None:
            if name not in repository.tasks:
                raise NothingBesideCanary(name)
        elif name in repository.tasks and not options.replace:
            raise TaskExists(name)


def _together(
    before: Mapping[str, Task], recut: Mapping[str, Task], coming: Mapping[str, Task], canary: float | None
) -> dict[str, Task]:
    """Return the tasks as they are when `coming` have come. recut: all versions of those `before`, as they are then."""
    steps = {(task.name, task.version): task.steps for task in recut.values()}
    tasks = {name: with_steps(task, steps) for name, task in before.items()}
    return tasks | {name: _placed(tasks.get(name), task, canary) for name, task in coming.items()}


def _inherited(before: Mapping[str, Task], coming: Mapping[str, Task]) -> tuple[dict[str, Task], dict[str, tuple[str, ...]]]:
    """Return `coming` with what those have from the tasks `before` of their names, and what that is."""
    tasks, taken = dict(coming), {}
    for name in coming.keys() & before.keys():
        tasks[name], words = inherited(before[name], coming[name])
        if words:
            taken[name] = words
    return tasks, taken


def _placed(task: Task | None, new: Task, canary: float | None) -> Task:
    """Return what becomes of `task` when `new` comes. Raises DifferentAnswer."""
    if task is None:
        return new
    if canary is None:
        return replaced(task, new)
    if new.outputs != task.outputs:
        raise DifferentAnswer(task.name, _answer(new), _answer(task))
    return with_canary(task, new, canary)


def _answer(task: Task) -> str:
    return " and ".join(f"{spec.dtype} rows of shape {list(spec.shape)} in {spec.name!r}" for spec in task.outputs)


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


def _redescribed(task: Task, chain: Chain, steps: Sequence[PlannedStep]) -> Task:
    """Return a version of a task with the steps that the plan gives it; `chain` goes by another name, if others of it are there."""
    return replace(task, steps=describe_steps(replace(chain, name=task.name), steps))


def _described(name: str, plan: SharingPlan, analysis: Analysis, max_batch_rows: int) -> Task:
    return describe_task(analysis.tasks[name], plan.tasks[name], analysis.models[name], max_batch_rows)


def _rows(repository: Repository) -> int:
    return min(segment.max_batch_rows for segment in repository.segments.values())


def _check_recut(old: Repository, new: Repository, limit: float) -> dict[str, float]:
    """Return the errors of tasks whose steps changed, against their old steps. Raises ParityError."""
    before, after, errors = ParityChecker(old), ParityChecker(new), {}
    for name, task in old.tasks.items():
        if task.steps == new.tasks[name].steps:
            continue
        inputs = [*sample_inputs(task.inputs, SAMPLE_ROWS).values()]
        pairs = zip(after.compose(name, inputs), before.compose(name, inputs), strict=True)
        errors[name] = max(relative_error(found, expected) for found, expected in pairs)
        check_error(new, name, errors[name], limit)
    return errors
