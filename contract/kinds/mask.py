"""A class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import ClassVar

from contract.kinds.kind import Kind, KindDoesNotFit, Numbers, Scores, Shapes, Taken, TakesNoImages, check_count, only_output

UNKNOWN = 255
"""What a pixel has in place of a class that the network has not seen."""


class Mask(Kind, frozen=True, tag="mask"):
    """The network gives a map, shape (n, C, h, w), of scores of C classes, of any resolution that covers its input. Labels: one a class.

    Where C is 1, there are two classes: the second is where the score is above `threshold`. None: above 0 of a logit, 0.5 of its sigmoid
    (`Task.scores` "independent").
    """

    threshold: float | None = None

    most: ClassVar[int] = UNKNOWN

    def __post_init__(self) -> None:
        if self.threshold is not None and not isfinite(self.threshold):  # JSON has no such number
            raise ValueError(f"the threshold is {self.threshold}; it must be a number")

    def least(self, scores: Scores) -> float:
        """Return above which score the one thing is there, where the network gives such `scores`, as `Task.scores` has it."""
        if self.threshold is not None:
            return self.threshold
        return 0.5 if scores == "independent" else 0.0

    def check(self, outputs: Shapes, labels: Sequence[str], takes: Taken) -> None:
        """Raise KindDoesNotFit unless there is one map of at most 255 classes, of images, with a label a class or none."""
        count, _, _ = only_output(outputs, "C, h, w", "a mask is")
        if takes != "image":
            raise TakesNoImages("a mask", "is of one")
        if count > self.most:
            raise KindDoesNotFit(f"gives {count} classes, and a mask has at most {self.most}")
        count = 2 if count == 1 else count
        check_count(len(labels) or count, count, "label", "labels", "classes")

    def scores_in(self, outputs: Mapping[str, Numbers], labels: int) -> tuple[str, Numbers] | None:
        """Return them where there is one class: of several the largest is taken, whatever they are."""
        ((name, values),) = outputs.items()
        return (name, values.reshape(-1, 1)) if values.shape[1] == 1 else None

    def remarks(self, scores: Scores, labels: int) -> Sequence[str]:
        """Say it where the threshold follows from the network's end."""
        if self.threshold is not None or scores != "independent":
            return ()
        return ("Masks: scores from 0 to 1, so that things are where they are above 0.5: {}.",)
