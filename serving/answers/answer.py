"""What all answers for people have in common, and what they are made of besides a network's values."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from contract.preprocessing import Preprocessing
from contract.repository.model import Task
from contract.text import EncodedText, TextInput

Vectors = Literal["list", "base64"]
Shown = Literal["logits", "scores", "preprocessing"]
Show = Shown | Collection[Shown]
_Numbers = list[float | None]


def _is_none(value: object) -> bool:
    return value is None


class TaskAnswer(BaseModel):
    """What a task answers about one image or text."""

    version: str = Field(description="Of the task's model.")
    logits: _Numbers | None = Field(
        default=None,
        exclude_if=_is_none,
        description="With `show=logits` only: the numbers that the network gives, in the order of the task's labels, before anything is "
        "made of them, whatever `scores` of the task calls them. Not of masks, boxes and tokens.",
    )
    scores: _Numbers | None = Field(
        default=None,
        exclude_if=_is_none,
        description="With `show=scores` only: what is made of the logits, of every label, in the order of the task's labels. Of classes "
        "and labels.",
    )
    preprocessing: Preprocessing | TextInput | None = Field(
        default=None,
        exclude_if=_is_none,
        description="With `show=preprocessing` only: what the image, or the text, was made into.",
    )


class LabelScore(BaseModel):
    """A label, and how sure the network is of it."""

    label: str
    score: float | None = Field(
        description="A probability, or what `scores` of the task says (GET /tasks); null where the network answers values that are "
        "not finite."
    )


@dataclass(frozen=True)
class About:
    """What a few rows are about, and how people want to have the answers.

    pictures: width and height of each row's picture as it was sent; texts: each row's; of which one is empty.
    top_k: how many of the best parts, None: as many as the kind gives. vectors: how embeddings are written. show: what is put beside.
    """

    pictures: Sequence[tuple[int, int]] = ()
    texts: Sequence[EncodedText] = ()
    top_k: int | None = None
    vectors: Vectors = "list"
    show: Collection[Shown] = ()


def label_of(task: Task, index: int) -> str:
    """Return the label of class, or value, number `index`: the number itself where there is none."""
    return task.labels[index] if index < len(task.labels) else str(index)


def softmax(logits: NDArray[np.generic], axis: int = 1) -> NDArray[np.float64]:
    """Return the probabilities of `logits` along `axis`, stable for values of any size."""
    values = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a row that is not finite has no probabilities: NaN, and no warning
        shifted = np.exp(values - values.max(axis=axis, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=axis, keepdims=True))


def sigmoid(logits: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)) of each value, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64))))
