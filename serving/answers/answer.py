"""What all answers for people have in common, and what they are made of besides a network's values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from contract.repository.model import Task
from contract.text import EncodedText

Vectors = Literal["list", "base64"]


class TaskAnswer(BaseModel):
    """What a task answers about one image or text."""

    version: str = Field(description="Of the task's model.")


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
    top_k: how many of the best parts, None: as many as the kind gives. vectors: how embeddings are written.
    """

    pictures: Sequence[tuple[int, int]] = ()
    texts: Sequence[EncodedText] = ()
    top_k: int | None = None
    vectors: Vectors = "list"


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
