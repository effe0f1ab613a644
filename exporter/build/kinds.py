"""Whether tasks can be of the kinds that somebody gave them, and what is assumed of the others."""

from __future__ import annotations

from collections.abc import Iterable

from contract.kinds.classes import Classes
from contract.kinds.kind import KindDoesNotFit
from contract.repository.model import Task
from exporter.errors import KindOfAnother, LabelsOfNoClasses


def check_kinds(tasks: Iterable[Task]) -> None:
    """Raise KindOfAnother for a task that cannot be of its kind, LabelsOfNoClasses for one of none whose labels are not of classes."""
    for task in tasks:
        try:
            if task.kind is not None:
                task.kind.check(task.output_shapes, task.labels, task.takes)
            elif task.labels:
                Classes().check(task.output_shapes, task.labels, task.takes)
        except KindDoesNotFit as error:
            if task.kind is not None:
                raise KindOfAnother(task.name, task.kind.word(), str(error)) from error
            raise LabelsOfNoClasses(task.name, len(task.labels), [spec.shape for spec in task.outputs]) from error


def describe_assumed(tasks: Iterable[Task]) -> str | None:
    """Return what tasks of which nobody has said the kind are taken for, in a sentence; None where there are none."""
    names: dict[str, list[str]] = {}
    for task in tasks:
        if task.kind is None:
            names.setdefault(task.answers.word(), []).append(task.name)
    if not names:
        return None
    words = "; ".join(f"{', '.join(found)} for {word}" for word, found in names.items())
    return f"Kinds: nobody said them, so that tasks are taken for what their outputs look like: {words}."
