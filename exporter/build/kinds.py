"""Whether tasks can be of the kinds that somebody gave them, and what is assumed of the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from contract.dtypes import Array
from contract.kinds.boxes import Boxes, by_box
from contract.kinds.classes import Classes
from contract.kinds.kind import KindDoesNotFit
from contract.kinds.labels import Labels
from contract.kinds.mask import Mask
from contract.repository.model import Task
from exporter.errors import KindOfAnother, LabelsOfNoClasses

_ROUNDING = 1e-3  # of scores from 0 to 1


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


def check_scores(tasks: Iterable[Task], outputs: Mapping[str, Sequence[Array]]) -> None:
    """Raise KindOfAnother for a task of boxes whose scores are not from 0 to 1. outputs: what each of `tasks` answered to some rows."""
    for task in tasks:
        if not isinstance(task.kind, Boxes) or task.kind.layout == "detr":
            continue
        scores = _box_scores(task, task.kind, outputs[task.name])
        if scores.size and (scores.min() < -_ROUNDING or scores.max() > 1 + _ROUNDING):
            axis = "" if task.labels or task.kind.layout == "torchvision" else ", or give labels if the other axis has them"
            raise KindOfAnother(
                task.name,
                task.kind.word(),
                f"gives scores from {scores.min():.3g} to {scores.max():.3g}, and those of the layout {task.kind.layout} are from 0 to 1; "
                f"put them through a sigmoid in the network{axis}",
            )


def _box_scores(task: Task, kind: Boxes, outputs: Sequence[Array]) -> Array:
    """Return all finite scores of boxes among `outputs` of `task`."""
    names = kind.find(task.output_shapes)
    values = {spec.name: array.astype(np.float64) for spec, array in zip(task.outputs, outputs, strict=True)}
    if kind.layout == "torchvision":
        scores = values[names.scores]
    else:
        scores = np.concatenate([by_box(row, kind.beside, len(task.labels))[:, 4:].ravel() for row in values[names.boxes]])
    return scores[np.isfinite(scores)]


def describe_ends(tasks: Iterable[Task]) -> list[str]:
    """Return a sentence for each way in which how networks end changes how their scores are read, or makes their kind doubtful."""
    tasks = [*tasks]
    masks = [
        task.name
        for task in tasks
        if isinstance(task.kind, Mask) and task.kind.threshold is None and task.scores == "independent"
    ]
    labels = [
        task.name for task in tasks if isinstance(task.kind, Labels) and task.scores in ("probabilities", "log_probabilities")
    ]
    said = []
    if masks:
        said.append(f"Masks: scores from 0 to 1, so that things are where they are above 0.5: {', '.join(masks)}.")
    if labels:
        said.append(
            f"Labels: probabilities that sum to one, so that two labels hardly reach 0.5 together: {', '.join(labels)}. If one of several "
            "is meant, the kind is classes."
        )
    return said


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
