"""Cuts a repository anew: its tasks are put together again and planned as an export of all of them would plan them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from exporter.analysis import Analysis, Progress
from exporter.choose import CutOptions
from exporter.existing import Existing
from exporter.parity import ParityChecker, check_error, relative_error
from exporter.planning import SharingPlan, make_sharing_plan
from exporter.rejoin import rejoin
from exporter.reuse import keep_segments
from exporter.sources import LoadTaskModel, Sources
from exporter.task_model import TaskModel
from exporter.wholes import SAMPLE_ROWS
from serving.repository import Repository, Task
from serving.repository.sample import sample_inputs


def read_anew(analysis: Analysis, existing: Existing, versions: Mapping[str, Task], coming: Sources, progress: Progress) -> None:
    """Let `analysis` read what is `coming` and the networks of `versions`, put together from the segments of `existing`."""
    models = existing.models

    def loader(task: Task) -> LoadTaskModel:
        return lambda: TaskModel(rejoin(task, models), task.labels, task.preprocessing, task.provenance)

    tasks = {name: loader(task) for name, task in versions.items()} | dict(coming.tasks)
    analysis.read(Sources(tasks, coming.backbone), progress)


def plan_anew(analysis: Analysis, answers: Mapping[str, bool], options: CutOptions, there: Mapping[str, str]) -> SharingPlan:
    """Return the plan of all tasks of `analysis`. answers: False for versions that are only kept; there: as for `make_sharing_plan`.

    What answers no requests decides nothing: it uses the segments that fit it, as a task that is added does.
    """
    tasks = [chain for name, chain in analysis.tasks.items() if answers.get(name, True)]
    kept = [chain for name, chain in analysis.tasks.items() if not answers.get(name, True)]
    plan = make_sharing_plan(tasks, analysis.backbone, options, there)
    if not kept:
        return plan
    there = {**there, **{name: segment.content for name, segment in plan.segments.items()}}
    wider = make_sharing_plan([*tasks, *kept], analysis.backbone, keep_segments(plan.tasks, kept), there)
    return replace(plan, segments={**wider.segments, **plan.segments}, tasks={**wider.tasks, **plan.tasks})


def check_recut(old: Repository, new: Repository, limit: float) -> dict[str, float]:
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
