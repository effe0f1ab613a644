"""Things in an image, each with a box."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from contract.kinds.kind import Kind, KindDoesNotFit, Numbers, Scores, Shapes, Taken, TakesNoImages, check_count, check_fractions

BoxLayout = Literal["torchvision", "yolo", "yolov5", "detr", "rtdetr"]
_ROUNDING = 1e-3  # of scores from 0 to 1
_FINISHED = "Boxes: scores that are from 0 to 1 where the network ends, and are read as they are: {}."
_LOGITS = "Boxes: the network ends in logits, whose {} gives the scores: {}."
_LIKE_SCORES = "Boxes: scores from 0 to 1 for the sample, taken for such though no sigmoid or softmax was found at the end: {}."
_LAST = "Boxes: the last class is taken for that of nothing, there being no labels: {}."
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
    """The network gives boxes, scores and classes, in one of these layouts, all in pixels of its input but those of DETR:

    torchvision: (n, K, 4) corners x1, y1, x2, y2, (n, K) scores and (n, K) numbers of classes, as its detectors give them in eval mode,
        filled up with scores of 0. Labels: one a number, the first of what has number 0.
    yolo: one output (n, 4 + C, A) or (n, A, 4 + C): centre and size of each box, and scores from 0 to 1 of C classes (YOLOv8 and later).
    yolov5: one output (n, A, 5 + C): beside them, before the classes, the score that there is anything (YOLOv5, YOLOv7, YOLOX decoded).
    detr: (n, Q, C + 1) logits or their softmax, the last of them of "nothing", and (n, Q, 4) centre and size as fractions of the input.
    rtdetr: the same without "nothing", (n, Q, C) logits or their sigmoid (RT-DETR, Deformable DETR).
    Which of the two it is in DETR's layouts, `Task.scores` says.

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
        if self.iou == 0:
            raise ValueError("the overlap is 0, so that no two boxes of a class could touch; give more than 0, or 1 to keep all")
        if self.most < 1:
            raise ValueError(f"the most boxes are {self.most}; it must be at least 1")

    @property
    def is_yolo(self) -> bool:
        """Whether one output has all that there is of a box."""
        return self.layout in ("yolo", "yolov5")

    @property
    def beside(self) -> int:
        """Return how many numbers of a box stand before the scores of its classes, in YOLO's layouts."""
        return 5 if self.layout == "yolov5" else 4

    def check(self, outputs: Shapes, labels: Sequence[str], takes: Taken) -> None:
        """Raise KindDoesNotFit unless the outputs are of the layout, of images, with a label a class or none."""
        if takes != "image":
            raise TakesNoImages("boxes", "are in one")
        found = self.find(outputs)
        if self.is_yolo:
            self._check_numbers(outputs[found.boxes], len(labels))
            return
        counts = {name: outputs[name][0] for name in (found.boxes, found.classes, found.scores) if name}
        if len({*counts.values()}) > 1:
            said = " and ".join(f"{'any number' if count < 0 else count} in {name}" for name, count in counts.items())
            raise KindDoesNotFit(f"gives {said}, and they are of the same boxes")
        if self.layout == "torchvision":
            return
        if outputs[found.classes][-1] < 0:
            raise KindDoesNotFit(f"gives any number of classes in {found.classes}, and it must be known how many there are")
        classes = outputs[found.classes][-1] - (self.layout == "detr")
        if classes < 1:
            raise KindDoesNotFit("gives one score for each box, and in the layout detr that is the one of nothing")
        check_count(len(labels) or classes, classes, "label", "labels", "classes")

    def _check_numbers(self, sizes: tuple[int, ...], labels: int) -> None:
        """Raise KindDoesNotFit unless one of YOLO's `sizes` is how many numbers a box has, and the other is not."""
        shape = f"[n, {', '.join('?' if size < 0 else str(size) for size in sizes)}]"
        expected = self.beside + labels
        if labels and expected not in sizes and max(sizes) > 0:
            raise KindDoesNotFit(f"has {labels} labels, and none of {list(sizes)} is {self.beside} more")
        if sizes[0] == sizes[1]:
            raise KindDoesNotFit(f"gives {shape}, and nothing tells which of the two are the numbers of a box")
        numbers = max(sizes) if min(sizes) < 0 else min(sizes)
        if not labels and 0 < numbers <= self.beside:
            raise KindDoesNotFit(
                f"gives {shape}, and a box of the layout {self.layout} has {self.beside} numbers and one for each class"
            )

    def scores_in(self, outputs: Mapping[str, Numbers], labels: int) -> tuple[str, Numbers] | None:
        """Return those of all boxes: with YOLOv5's that there is anything, of torchvision's one each."""
        shapes = {name: values.shape[1:] for name, values in outputs.items()}
        names = self.find(shapes)
        if self.is_yolo:
            rows = [self.by_box(row, row.shape, labels)[:, 4:] for row in outputs[names.boxes]]
            return names.boxes, np.concatenate(rows)
        name = names.scores or names.classes
        return name, outputs[name].reshape(-1, 1 if names.scores else shapes[name][-1])

    def check_scores(self, scores: Scores, found: Numbers, labels: int) -> None:
        """Raise KindDoesNotFit for scores that are not from 0 to 1 where they have to be, and for those of DETR's other layout."""
        if self.layout == "detr" and scores == "independent":
            raise KindDoesNotFit(
                "gives scores from 0 to 1 that do not sum to one over the classes, so that the last is not that of nothing, as the layout "
                "detr has it; the layout rtdetr has no such class"
            )
        if self.layout == "rtdetr" and scores in ("probabilities", "log_probabilities"):
            raise KindDoesNotFit(
                "gives probabilities that sum to one over the classes, and those of the layout rtdetr are each by itself; in the layout "
                "detr the last of them is that of nothing"
            )
        known = found[np.isfinite(found)] if found.dtype.kind == "f" else found
        if "detr" in self.layout or not known.size or (known.min() >= -_ROUNDING and known.max() <= 1 + _ROUNDING):
            return
        axis = "" if labels or not self.is_yolo else ", or give labels if the other axis has them"
        raise KindDoesNotFit(
            f"gives scores from {known.min():.3g} to {known.max():.3g}, and those of the layout {self.layout} are from 0 to 1; put them "
            f"through a sigmoid in the network{axis}"
        )

    def remarks(self, scores: Scores, labels: int) -> Sequence[str]:
        """Say how scores become such, and which class is taken for that of nothing."""
        if "detr" not in self.layout:
            return () if scores in ("independent", "probabilities") else (_LIKE_SCORES,)
        taken = "softmax" if self.layout == "detr" else "sigmoid"
        ends = _LOGITS.format(taken, "{}") if scores in ("logits", "value") else _FINISHED
        return (ends, *([_LAST] if self.layout == "detr" and not labels else []))

    def by_box(self, values: Numbers, sizes: Sequence[int], labels: int) -> Numbers:
        """Return YOLO's output for one image with a box a row.

        Labels tell which axis has the numbers of one box, without them it is the one that is not free, or the shorter one. sizes: of the
        output as the task has them, -1: free. labels: how many, 0 if there are none.
        """
        first, second = sizes
        numbers = self.beside + labels if labels else second if first < 0 else first if second < 0 else min(first, second)
        return values.T if numbers == first else values

    def find(self, outputs: Shapes) -> BoxOutputs:
        """Return which of `outputs` is which. Raises KindDoesNotFit where that cannot be told."""
        if self.is_yolo:
            name = self._find(outputs, "boxes", lambda shape: len(shape) == 2)
            return BoxOutputs(name, name)
        boxes = self._find(outputs, "boxes", lambda shape: len(shape) == 2 and shape[1] == 4)
        others = {name: shape for name, shape in outputs.items() if name != boxes}
        if "detr" in self.layout:
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
