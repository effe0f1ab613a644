"""Any number of labels at once: binary cross entropy and mean average precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tuning.data.folds import Fold, Rows
from tuning.kinds.metric import AVERAGE_PRECISION, Metric
from tuning.kinds.objective import Objective
from tuning.kinds.strata import draw_label_rows, label_folds


class LabelsObjective(Objective):
    """Targets: float32 (n, L), 1 where an image has the label, else 0. Scores: a logit each."""

    remark = (
        "Mean average precision: of each label from 0 to 1, averaged over the labels that any of the images has; more is better."
    )

    @property
    def metric(self) -> Metric:
        """The mean average precision."""
        return AVERAGE_PRECISION

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the binary cross entropy of logits, each label by itself."""
        return nn.functional.binary_cross_entropy_with_logits(scores, targets)

    def measure(self, scores: Tensor, targets: NDArray[Any]) -> Mapping[str, float]:
        """Return the mean average precision of the labels that are there; a label that no image has says nothing."""
        from sklearn.metrics import average_precision_score

        there = targets.any(axis=0)
        precisions = average_precision_score(targets[:, there], scores.numpy()[:, there], average=None)
        return {"mean_average_precision": float(np.mean(precisions))}

    def make_folds(self, rows: Rows, count: int, seed: int) -> tuple[Fold, ...]:
        """Return folds of the places in `rows`, of which each learns from images of every label."""
        return label_folds(self.data.train.targets[rows], count, seed, self.data.labels)

    def most_folds(self, rows: Rows) -> int:
        """Return how many images the rarest label has."""
        return int((self.data.train.targets[rows] > 0).sum(axis=0).min())

    def draw(self, count: int, seed: int) -> Rows:
        """Return a draw with images of every label."""
        return draw_label_rows(self.data.train.targets, count, seed)
