"""What a kind of task must know to be tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuning.data.folds import Fold, Rows
from tuning.data.labelled import TaskData
from tuning.kinds.metric import Metric
from tuning.kinds.strata import fixed_fold


class Objective:
    """The loss and the measures of one task. Scores are what its network gives in training: float32 (n, outputs)."""

    remark = ""
    """How to read the measures, a sentence for people; empty where that is plain."""

    def __init__(self, data: TaskData) -> None:
        self.data = data

    @property
    def metric(self) -> Metric:
        """The one number that searches and comparisons go by."""
        raise NotImplementedError

    def targets(self) -> Tensor:
        """Return the training targets as `loss` takes them, one row an image."""
        return torch.from_numpy(self.data.train.targets)

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""
        raise NotImplementedError

    def measure(self, scores: Tensor, targets: NDArray[Any]) -> Mapping[str, float]:
        """Return name to value, such as "accuracy"; `targets` as the data has them."""
        raise NotImplementedError

    def score(self, scores: Tensor, targets: NDArray[Any]) -> float:
        """Return the number of `metric`; where `measure` gives one alone, that."""
        (number,) = self.measure(scores, targets).values()
        return number

    def folds(self, count: int, seed: int) -> tuple[Fold, ...]:
        """Return the folds that a search scores on: the data's fixed validation split, else `count` folds. Raises BadData, BadOptions."""
        fixed, images = self.data.validation, len(self.data.train)
        return self.make_folds(np.arange(images), count, seed) if fixed is None else fixed_fold(images, fixed)

    def folds_of(self, rows: Rows, count: int, seed: int) -> tuple[Fold, ...]:
        """Return folds of the training images `rows`, fewer than `count` where there are too few images. Raises BadData, BadOptions."""
        folds = self.make_folds(rows, max(2, min(count, self.most_folds(rows))), seed)
        return tuple(Fold(rows[fold.train], rows[fold.validation]) for fold in folds)

    def make_folds(self, rows: Rows, count: int, seed: int) -> tuple[Fold, ...]:
        """Return `count` folds; their rows are places in `rows`. Raises BadData, BadOptions."""
        raise NotImplementedError

    def most_folds(self, rows: Rows) -> int:
        """Return how many folds there are images for."""
        raise NotImplementedError

    def draw(self, count: int, seed: int) -> Rows:
        """Return `count` of the training images, ascending; those of fewer are among those of more. Raises BadData."""
        raise NotImplementedError

    def check_head(self, head: nn.Module) -> None:
        """Raise UnsupportedNetwork for a last layer that cannot give what the kind answers."""

    def finish(self, tensors: Mapping[str, Tensor], head: tuple[str, ...]) -> dict[str, Tensor]:
        """Return the task's tensors by state-dict name , those under `head` so changed that the network gives answers."""
        return dict(tensors)

    def answers(self, scores: Tensor) -> Tensor:
        """Return what the network gives for these scores once `finish` has changed it."""
        return scores
