"""What is common to all kinds of tasks: how one is written down, and what a network of it must look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.generic]
# What the numbers are that a network answers with: see `contract.repository.model.Task`.
Scores = Literal["logits", "probabilities", "independent", "log_probabilities", "value", ""]
Shapes = Mapping[str, tuple[int, ...]]
"""What a task gives: the shape of each output by name, without the batch axis, -1 for a size that is free."""
Taken = Literal["image", "text", ""]
"""What a task can be asked about besides tensors."""


class KindDoesNotFit(ValueError):
    """A kind that a task's network cannot have. The sentence is a clause about the task: "gives 2 outputs, and ..."."""


class TakesNoImages(KindDoesNotFit):
    """Of a kind whose answers are about images. kind: a word for people, as "a mask"."""

    def __init__(self, kind: str, many: str) -> None:
        super().__init__(f"takes no images, and {kind} {many}")
        self.kind = kind


class Kind(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"):
    """How people read what a task answers. A subclass has the parameters of one kind; a value out of range raises ValueError."""

    ranks: ClassVar[bool] = False
    """Whether an answer has a best part, so that one can ask for the first k."""
    is_for_people: ClassVar[bool] = True
    """Whether there is an answer besides the tensors."""

    @classmethod
    def word(cls) -> str:
        """Return what the kind is called."""
        return str(cls.__struct_config__.tag)

    def check(self, outputs: Shapes, labels: Sequence[str], takes: Taken) -> None:
        """Raise KindDoesNotFit unless a task with these outputs and labels, which takes such, can be of this kind."""
        raise NotImplementedError

    def scores_in(self, outputs: Mapping[str, Numbers], labels: int) -> tuple[str, Numbers] | None:
        """Return which output has scores, and those among what a network answers to some rows, shape (rows, classes).

        None: nothing is read as scores. outputs: each of shape (n, ...). labels: how many there are.
        """
        named = [(name, values) for name, values in outputs.items() if values.ndim == 2]
        return named[0] if len(outputs) == len(named) == 1 else None

    def check_scores(self, scores: Scores, found: Numbers, labels: int) -> None:
        """Raise KindDoesNotFit where `scores`, of which a network gave those that `scores_in` has `found`, are none of the kind."""

    def remarks(self, scores: Scores, labels: int) -> Sequence[str]:
        """Return how the network's end decides how it is read, or makes the kind doubtful: sentences, with {} for the task's name."""
        return ()


def only_output(outputs: Shapes, axes: str, what: str) -> tuple[int, ...]:
    """Return the shape of the only output, which has so many axes. Raises KindDoesNotFit.

    axes: what they are called beside the batch axis, as in "C, height, width". what: the kind has, for the sentence.
    """
    count = len(axes.split(", ")) if axes else 0
    shapes = [*outputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != count:
        given = " and ".join(str(["n", *("?" if size < 0 else size for size in shape)]).replace("'", "") for shape in shapes)
        raise KindDoesNotFit(f"gives {given}, and {what} one output of shape [n, {axes}]")
    return shapes[0]


def check_count(given: int, expected: int, one: str, many: str, of: str) -> None:
    """Raise KindDoesNotFit unless there are as many of something as `expected` (-1: any number)."""
    if expected not in (-1, given):
        raise KindDoesNotFit(f"has {given} {one if given == 1 else many} for {expected} {of}")


def check_fractions(values: Sequence[float], what: str) -> None:
    """Raise ValueError unless all `values` are from 0 to 1."""
    for value in values:
        if not 0 <= value <= 1:
            raise ValueError(f"{what} is {value:g}; it must be from 0 to 1")
