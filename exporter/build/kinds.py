"""Whether tasks can be of the kinds that somebody gave them, and what is assumed of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from contract.dtypes import Array
from contract.kinds.classes import Classes
from contract.kinds.kind import KindDoesNotFit, TakesNoImages
from contract.repository.model import Task
from exporter.errors import KindNeedsImages, KindOfAnother, LabelsOfNoClasses


def check_kinds(tasks: Iterable[Task]) -> None:
    """Raise KindOfAnother for a task that cannot be of its kind, LabelsOfNoClasses for one of none whose labels are not of classes."""
    for task in tasks:
        try:
            if task.kind is not None:
                task.kind.check(task.output_shapes, task.labels, task.takes)
            elif task.labels:
                Classes().check(task.output_shapes, task.labels, task.takes)
        except KindDoesNotFit as error:
            if isinstance(error, TakesNoImages) and task.is_like_image and task.preprocessing is None:
                raise KindNeedsImages(task.name, error.kind) from error
            if task.kind is not None:
                raise KindOfAnother(task.name, task.kind.word(), str(error)) from error
            raise LabelsOfNoClasses(task.name, len(task.labels), [spec.shape for spec in task.outputs]) from error


def check_scores(tasks: Iterable[Task], outputs: Mapping[str, Sequence[Array]]) -> None:
    """Raise KindOfAnother for a task whose scores are none of its kind. outputs: what each of `tasks` answered to some rows."""
    for task in tasks:
        found = found_scores(task, outputs[task.name])
        if task.kind is None or found is None:
            continue
        try:
            task.kind.check_scores(task.scores, found[1], len(task.labels))
        except KindDoesNotFit as error:
            raise KindOfAnother(task.name, task.kind.word(), str(error)) from error


def found_scores(task: Task, outputs: Sequence[Array]) -> tuple[str, Array] | None:
    """Return which output of `task` has scores, and those among what it answered, shape (rows, classes); None: there are none."""
    values = {spec.name: array for spec, array in zip(task.outputs, outputs, strict=True)}
    found = task.answers.scores_in(values, len(task.labels)) if all(array.size for array in outputs) else None
    return found if found is not None and found[1].size else None


def describe_ends(tasks: Iterable[Task]) -> list[str]:
    """Return a sentence for each way in which how networks end decides how they are read, or makes their kind doubtful."""
    names: dict[str, list[str]] = {}
    for task in tasks:
        for sentence in task.kind.remarks(task.scores, len(task.labels)) if task.kind is not None else ():
            names.setdefault(sentence, []).append(task.name)
    return [sentence.format(", ".join(found)) for sentence, found in names.items()]


def describe_unsaid(tasks: Iterable[Task]) -> str | None:
    """Return of which tasks an image could become the input, and it is not known how, in a sentence; None where there are none."""
    names = [task.name for task in tasks if task.preprocessing is None and task.text is None and task.is_like_image]
    return f"It is not known how an image becomes the input of {', '.join(names)}: asked over v2 alone." if names else None


def describe_assumed(tasks: Iterable[Task]) -> str | None:
    """Return what tasks of which nobody has said the kind are taken for, in a sentence; None where there are none."""
    names: dict[str, list[str]] = {}
    for task in tasks:
        if task.kind is None:
            names.setdefault(task.answers.word(), []).append(task.name)
    if not names:
        return None
    words = "; ".join(f"{word} ({', '.join(found)})" for word, found in names.items())
    return f"Kinds that nobody gave, told by the shapes of the outputs: {words}."
