"""Things in an image, each with a box."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from contract.kinds.kind import Kind, KindDoesNotFit, Shapes, Taken, check_count, check_fractions

BoxLayout = Literal["torchvision", "yolo", "yolov5", "detr"]
_NAMES = {
    "boxes": ("boxes", "pred_boxes"),
    "scores": ("scores", "score"),
    "classes": ("labels", "classes", "class_ids", "logits", "pred_logits"),
}


@dataclass(frozen=True)
class BoxOutputs:
    """The names of outputs. classes: DETR's logits, torchvision's numbers, of YOLO the same as `boxes`. scores: torchvision's alone."""

    boxes: str
    classes: str
    scores: str = ""


class Boxes(Kind, frozen=True, tag="boxes"):
    """The network gives boxes, scores and classes, in one of these layouts, all in pixels of its input but DETR's:

    torchvision: (n, K, 4) corners x1, y1, x2, y2, (n, K) scores and (n, K) numbers of classes, as its detectors give them in eval mode,
        filled up with scores of 0. Labels: one a number, the first of what has number 0.
    yolo: one output (n, 4 + C, A) or (n, A, 4 + C): centre and size of each box, and scores from 0 to 1 of C classes (YOLOv8 and later).
    yolov5: one output (n, A, 5 + C): beside them, before the classes, the score that there is anything (YOLOv5, YOLOv7, YOLOX decoded).
    detr: (n, Q, C + 1) logits, the last of them of "nothing", and (n, Q, 4) centre and size as fractions of the input.

    score: the least that people see, from 0 to 1. iou: of two boxes of one class that overlap by more of their union than this, from 0
    to 1, the one with the lower score goes; 1: none does. most: boxes of an image. boxes, classes, scores: the names of outputs, where they
    cannot be told by their shapes.
    """

    ranks: ClassVar[bool] = True

    layout: BoxLayout = "torchvision"
    score: float = 0.25
    iou: float = 0.5
    most: int = 100
    boxes: str = ""
    classes: str = ""
    scores: str = ""

    def __post_init__(self) -> None:
        check_fractions([self.score], "the least score")
        check_fractions([self.iou], "the overlap")
        if self.most < 1:
            raise ValueError(f"the most boxes are {self.most}; it must be at least 1")

    @property
    def beside(self) -> int:
        """Return how many numbers of a box stand before the scores of its classes, in YOLO's layouts."""
        return 5 if self.layout == "yolov5" else 4

    def check(self, outputs: Shapes, labels: Sequence[str], takes: Taken) -> None:
        """Raise KindDoesNotFit unless the outputs are of the layout, of images, with a label a class or none."""
        if takes != "image":
            raise KindDoesNotFit("takes no images, and boxes are in one")
        found = self.find(outputs)
        if labels and self.layout in ("yolo", "yolov5"):
            sizes = outputs[found.boxes]
            expected = len(labels) + self.beside
            if expected not in sizes and -1 not in sizes:
                raise KindDoesNotFit(f"has {len(labels)} labels, and none of {list(sizes)} is {self.beside} more")
        if labels and self.layout == "detr":
            check_count(len(labels), outputs[found.classes][-1] - 1, "label", "labels", "classes")

    def find(self, outputs: Shapes) -> BoxOutputs:
        """Return which of `outputs` is which. Raises KindDoesNotFit where that cannot be told."""
        if self.layout in ("yolo", "yolov5"):
            name = self._find(outputs, "boxes", lambda shape: len(shape) == 2)
            return BoxOutputs(name, name)
        boxes = self._find(outputs, "boxes", lambda shape: len(shape) == 2 and shape[1] == 4)
        others = {name: shape for name, shape in outputs.items() if name != boxes}
        if self.layout == "detr":
            return BoxOutputs(boxes, self._find(others, "classes", lambda shape: len(shape) == 2))
        scores = self._find(others, "scores", lambda shape: len(shape) == 1)
        rest = {name: shape for name, shape in others.items() if name != scores}
        return BoxOutputs(boxes, self._find(rest, "classes", lambda shape: len(shape) == 1), scores)

    def _find(self, outputs: Shapes, what: str, fits: Callable[[tuple[int, ...]], bool]) -> str:
        """Return the output that is `what`: as it was named, or the only one of its shape, or of those the only one with its usual name."""
        said = getattr(self, what)
        if said:
            named = [name for name in outputs if said in (name, name.rpartition(".")[2])]
            if not named:
                raise KindDoesNotFit(f"gives {', '.join(outputs)}, and no {said!r}")
            return named[0]
        shaped = [name for name, shape in outputs.items() if fits(shape)]
        usual = [name for name in shaped if name.rpartition(".")[2] in _NAMES[what]]
        for found in (shaped, usual):
            if len(found) == 1:
                return found[0]
        given = ", ".join(f"{name} [{', '.join(['n', *map(str, shape)])}]" for name, shape in outputs.items())
        raise KindDoesNotFit(
            f"gives {given}: of the layout {self.layout}, {'several' if shaped else 'none'} of them could be the {what}; give the "
            f"parameter {what} the name of the right one, or another layout"
        )


def by_box(values: NDArray[np.float64], beside: int, labels: int) -> NDArray[np.float64]:
    """Return YOLO's output for one image with a box a row: labels tell which axis has the numbers of one box, else it is the shorter one.

    beside: numbers before the scores of the classes. labels: how many, 0 if there are none.
    """
    first, second = values.shape
    if labels and second == beside + labels != first:
        return values
    if (labels and first == beside + labels != second) or first < second:
        return values.T
    return values
