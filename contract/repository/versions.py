"""What becomes of a task's versions when it is deployed, rolled back or promoted: pure functions from a task to the next one.

A task has a current version, perhaps the one before it, and perhaps a canary. Numbers count up and are never given twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from contract.errors import NoCanary, NothingToRollBackTo
from contract.repository import Canary, Step, Task
from contract.tensor_names import Names, succeeding


def inherited(task: Task, new: Task, *, images: bool = True) -> tuple[Task, tuple[str, ...]]:
    """Return `new` with what it lacks to take the place of `task`, or part of its requests, and what that is, in words.

    An ONNX file does not say how an image becomes its input; where inputs are equal, that is as before, and so is what somebody wrote
    into the configuration of how images lie in them, and the tokenizer. So are the labels of as many classes. Without them, clients that
    sent images or text, or read labels, would be refused, or get numbers. And so is the kind, of equal outputs. images: whether the
    preprocessing may be as before; not where the new file says that it is another.
    """
    taken = []
    if images and new.preprocessing is None and task.preprocessing is not None and new.inputs == task.inputs:
        new = replace(new, preprocessing=task.preprocessing)
        taken.append("preprocessing")
    if not any(new.input_layouts()) and any(task.input_layouts()) and new.inputs == task.inputs:
        new = replace(new, inputs=task.inputs)
        taken.append("layout of images")
    if new.text is None and task.text is not None and new.inputs == task.inputs:
        new = replace(new, text=task.text)
        taken.append("tokenizer")
    if not new.labels and task.labels and [spec.shape for spec in new.outputs] == [spec.shape for spec in task.outputs]:
        new = replace(new, labels=task.labels)
        taken.append("labels")
    if new.kind is None and task.kind is not None and new.output_shapes == task.output_shapes:
        new = replace(new, kind=task.kind)
        taken.append("kind")
    return replace(new, names=_names_after(task, new)), tuple(taken)


def _names_after(task: Task, new: Task) -> Names:
    """Return the names of the tensors of `new`: what both have keeps its names, and may be called as the new network does, too."""
    both = {spec.name for spec in (*task.inputs, *task.outputs)} & {spec.name for spec in (*new.inputs, *new.outputs)}
    kinds = [[spec.name for spec in specs] for specs in (new.inputs, new.outputs)]
    return succeeding(task.names, new.names, sorted(both), kinds)


def replaced(task: Task, new: Task) -> Task:
    """Return `task` with `new` as its current version and the old one kept; `task` itself if `new` is what it is already.

    The version before the old one and the canary are let go of.
    """
    if _is_same(task, new):
        return task
    return replace(_bare(new), version=str(_newest(task) + 1), previous=_bare(task))


def with_canary(task: Task, new: Task, share: float) -> Task:
    """Return `task` with `new` as its canary, in the place of one that is there; where that is the same, only the share changes."""
    if task.canary is not None and _is_same(task.canary.task, new):
        return replace(task, canary=Canary(task.canary.task, share))
    canary = Canary(replace(_bare(new), version=str(_newest(task) + 1)), share)
    return replace(task, canary=canary, last_version=0)


def rolled_back(task: Task) -> Task:
    """Return `task` without its canary or, if it has none, with its current and its previous version in each other's place.

    Raises NothingToRollBackTo.
    """
    if task.canary is not None:
        return _counted(replace(task, canary=None), task)
    if task.previous is None:
        raise NothingToRollBackTo(task.name)
    return _counted(replace(task.previous, previous=_bare(task)), task)


def promoted(task: Task) -> Task:
    """Return `task` with its canary as the current version and the current one as the previous. Raises NoCanary."""
    if task.canary is None:
        raise NoCanary(task.name)
    return _counted(replace(task.canary.task, previous=_bare(task)), task)


def without_previous(task: Task) -> Task:
    """Return `task` without the version that is kept for a rollback."""
    return _counted(replace(task, previous=None), task)


def all_versions(tasks: Mapping[str, Task], coming: Collection[str]) -> dict[str, Task]:
    """Return every version of `tasks` as a task of its own, under a name of its own: TASK@VERSION, which no task can have.

    Current versions go by the names of their tasks, but for those that are `coming` anew.
    """
    versions = {}
    for task in tasks.values():
        for version in task.versions:
            versions[_key(task, version, coming)] = _bare(version)
    return versions


def staying(tasks: Mapping[str, Task], coming: Collection[str], *, beside: bool) -> dict[str, bool]:
    """Return which of `all_versions` stay when others are `coming`, and whether each answers requests then, or is only kept.

    beside: those that come are canaries.
    """
    answers: dict[str, bool] = {}
    for task in tasks.values():
        comes = task.name in coming
        left: list[tuple[Task | None, bool]] = [(task, beside or not comes)]
        if beside or not comes:
            left.append((task.previous, False))
        if not comes:
            left.append((task.canary.task if task.canary else None, True))
        answers |= {_key(task, version, coming): answering for version, answering in left if version is not None}
    return answers


def with_steps(task: Task, steps: Mapping[tuple[str, str], tuple[Step, ...]]) -> Task:
    """Return `task` with other steps in all of its versions. steps: by the names of tasks and their versions."""
    return replace(
        task,
        steps=steps[task.name, task.version],
        previous=task.previous and with_steps(task.previous, steps),
        canary=task.canary and Canary(with_steps(task.canary.task, steps), task.canary.share),
    )


def _key(task: Task, version: Task, coming: Collection[str]) -> str:
    is_current = version is task and task.name not in coming
    return task.name if is_current else f"{task.name}@{version.version}"


def _bare(task: Task) -> Task:
    return replace(task, previous=None, canary=None, last_version=0)


def _is_same(task: Task, new: Task) -> bool:
    # What was recorded follows from the steps, but for digits that another machine computes otherwise; other names are no other model.
    return _bare(task) == replace(_bare(new), version=task.version, parity=task.parity, names=task.names)


def _newest(task: Task) -> int:
    """Return the highest version number that `task` ever had."""
    return max(task.last_version, *(int(version.version) for version in task.versions), 0)


def _counted(task: Task, before: Task) -> Task:
    """Return `task`, which `before` became, knowing the highest number if none of its versions has it."""
    newest = _newest(before)
    task = replace(task, last_version=0)
    return replace(task, last_version=newest if newest > _newest(task) else 0)
