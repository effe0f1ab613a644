"""One of several classes: cross entropy and accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from tuning.data.folds import Fold, Rows, draw_rows, make_folds
from tuning.kinds.metric import ACCURACY, Metric
from tuning.kinds.objective import Objective


class ClassesObjective(Objective):
    """Targets: int64 (n,), indices of classes."""

    @property
    def metric(self) -> Metric:
        """The accuracy."""
        return ACCURACY

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy of logits."""
        return nn.functional.cross_entropy(scores, targets)

    def measure(self, scores: Tensor, targets: NDArray[Any]) -> Mapping[str, float]:
        """Return the share of images that are put into the right class."""
        return {"accuracy": float((scores.argmax(1).numpy() == targets).mean())}

    def make_folds(self, rows: Rows, count: int, seed: int) -> tuple[Fold, ...]:
        """Return stratified folds of the places in `rows`."""
        return make_folds(self.data.train.targets[rows], count, seed, labels=self.data.labels)

    def most_folds(self, rows: Rows) -> int:
        """Return how many images the smallest class has."""
        return int(np.unique(self.data.train.targets[rows], return_counts=True)[1].min())

    def draw(self, count: int, seed: int) -> Rows:
        """Return a stratified draw."""
        return draw_rows(self.data.train.targets, count, seed)
