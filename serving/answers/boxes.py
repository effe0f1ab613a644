"""Things in the picture that was sent, each with a box."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from contract.dtypes import Array
from contract.kinds.boxes import Boxes
from contract.repository.model import Task
from serving.answers.answer import About, TaskAnswer, label_of, sigmoid
from serving.answers.classes import scores as class_scores
from serving.answers.geometry import Frame, frame_of

_Floats = NDArray[np.float64]
_Found = tuple[_Floats, _Floats, NDArray[np.intp]]  # corners (n, 4) in pixels of the input, scores (n,), classes (n,)
_MOST_CLASSES = 1 << 31
_MOST_COMPARED = 3000  # boxes with the highest scores among which overlaps are looked for: each is compared with each


class Box(BaseModel):
    """A thing in the picture."""

    label: str
    score: float
    box: tuple[float, float, float, float] = Field(description="x1, y1, x2, y2 in pixels of the picture as it was sent.")


class BoxesAnswer(TaskAnswer):
    """What was found, best first."""

    kind: Literal["boxes"] = "boxes"
    boxes: list[Box]


def read_boxes(task: Task, kind: Boxes, values: Mapping[str, Array], about: About) -> list[BoxesAnswer]:
    """Return the boxes of each row with a high enough score, of those of one class that overlap the best, where they lie in the picture.

    What lies wholly where the preprocessing has cut the picture off goes, of others the part that the network has not seen.
    """
    if task.preprocessing is None:
        raise ValueError(f"task {task.name!r} takes no images")
    frames = [frame_of(width, height, task.preprocessing) for width, height in about.pictures]
    most = kind.most if about.top_k is None else min(about.top_k, kind.most)
    answers = []
    for row, frame in enumerate(frames):
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is no box, and no warning
            found = _kept(kind, *_found(task, kind, {name: array[row] for name, array in values.items()}, frame), frame, most)
        answers.append(BoxesAnswer(version=task.version, boxes=_boxes(task, found)))
    return answers


def _boxes(task: Task, found: _Found) -> list[Box]:
    corners, scores, classes = found
    return [
        Box(label=label_of(task, int(index)), score=float(score), box=(x1, y1, x2, y2))
        for (x1, y1, x2, y2), score, index in zip(corners.tolist(), scores, classes, strict=True)
    ]


def _found(task: Task, kind: Boxes, values: Mapping[str, Array], frame: Frame) -> _Found:
    """Return all that the network gives for one image."""
    names = kind.find(task.output_shapes)
    boxes = values[names.boxes].astype(np.float64)
    if kind.layout == "torchvision":
        return boxes, values[names.scores].astype(np.float64), _numbers(values[names.classes])
    if not kind.is_yolo:
        shares = _shares(task, kind, values[names.classes])
        return _corners(boxes * ([frame.seen_width, frame.seen_height] * 2)), shares.max(axis=1), shares.argmax(axis=1)
    beside = kind.beside
    rows = kind.by_box(boxes, task.output_shapes[names.boxes], len(task.labels)).astype(np.float64)
    shares = rows[:, beside:] if kind.layout == "yolo" else rows[:, 5:] * rows[:, 4:5]
    return _corners(rows[:, :4]), shares.max(axis=1), shares.argmax(axis=1)


def _numbers(classes: Array) -> NDArray[np.intp]:
    """Return numbers of classes as such, -1 of what can be none."""
    numbers = classes.astype(np.float64)
    return np.where((numbers >= 0) & (numbers < _MOST_CLASSES), numbers, -1).astype(np.intp)  # NaN is none


def _shares(task: Task, kind: Boxes, scores: Array) -> _Floats:
    """Return from 0 to 1 how sure a network of DETR's layouts is of each class of each box, but of nothing."""
    if kind.layout == "detr":
        return class_scores(scores, task.scores)[:, :-1]
    return scores.astype(np.float64) if task.scores == "independent" else sigmoid(scores)


def _corners(boxes: _Floats) -> _Floats:
    """Return boxes given as centre and size by their corners."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _kept(kind: Boxes, corners: _Floats, scores: _Floats, classes: NDArray[np.intp], frame: Frame, most: int) -> _Found:
    """Return the `most` best boxes that people see, in pixels of the picture."""
    is_box = np.isfinite(corners).all(axis=1) & (classes >= 0)
    likely = np.flatnonzero(is_box & (scores >= kind.score))  # not NaN
    likely = likely[np.argsort(-scores[likely], kind="stable")]
    placed = frame.to_picture(corners[likely])
    is_seen = (placed[:, 2] > placed[:, 0]) & (placed[:, 3] > placed[:, 1])
    likely, placed = likely[is_seen], placed[is_seen]
    chosen = _apart(placed, classes[likely], kind.iou, most)
    return placed[chosen], scores[likely[chosen]], classes[likely[chosen]]


def _apart(corners: _Floats, classes: NDArray[np.intp], iou: float, most: int) -> list[int]:
    """Return which of the boxes, best first, stay when each lets go of worse ones of its class that overlap it by more than `iou`."""
    left = np.arange(min(len(corners), max(_MOST_COMPARED, most)))
    chosen: list[int] = []
    while len(left) and len(chosen) < most:
        best, left = int(left[0]), left[1:]
        chosen.append(best)
        overlaps = (classes[left] == classes[best]) & (_overlap(corners[best], corners[left]) > iou)
        left = left[~overlaps]
    return chosen


def _overlap(box: _Floats, others: _Floats) -> _Floats:
    """Return the intersection over union of `box`, shape (4,), with each of `others`, shape (n, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=1)
    sizes = np.prod(others[:, 2:] - others[:, :2], axis=1)
    return np.asarray(both / (np.prod(box[2:] - box[:2]) + sizes - both))
