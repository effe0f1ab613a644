"""Any number of labels at once: those whose scores reach their thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from contract.dtypes import Array
from contract.kinds.kind import Scores
from contract.kinds.labels import Labels
from contract.repository.model import Task
from serving.answers.answer import About, LabelScore, TaskAnswer, label_of, sigmoid


class LabelsAnswer(TaskAnswer):
    """The labels that hold, best first."""

    kind: Literal["labels"] = "labels"
    labels: list[LabelScore] = Field(description="Those whose scores, each from 0 to 1 by itself, reach their thresholds.")


def read_labels(task: Task, kind: Labels, values: Mapping[str, Array], about: About) -> list[LabelsAnswer]:
    """Return the labels of each row of the only output, shape (n, L), whose scores are at least their thresholds."""
    rows = values[task.outputs[0].name]
    scores = label_scores(rows, task.scores)
    least = np.array([kind.threshold(index) for index in range(scores.shape[1])])
    return [LabelsAnswer(version=task.version, labels=_holding(task, row, least)) for row in scores]


def label_scores(rows: Array, kind: Scores) -> NDArray[np.float64]:
    """Return `rows`, which are of `kind`, each from 0 to 1: a single number that is no sigmoid is a logit, too; integers are 0 or 1."""
    if kind == "log_probabilities":
        return np.exp(rows.astype(np.float64))
    is_logit = kind in ("logits", "value", "") and rows.dtype.kind == "f"
    return sigmoid(rows) if is_logit else rows.astype(np.float64)


def _holding(task: Task, row: NDArray[np.float64], least: NDArray[np.float64]) -> list[LabelScore]:
    order = np.argsort(-row, kind="stable")  # what is no number comes last, and is shown: nobody knows that it is below
    shown = [int(index) for index in order if np.isnan(row[index]) or row[index] >= least[index]]
    return [LabelScore(label=label_of(task, index), score=float(row[index])) for index in shown]
