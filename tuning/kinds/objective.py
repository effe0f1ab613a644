"""What a kind of task must know to be tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuning.data.labelled import TaskData


class Objective:
    """The loss and the measures of one task. Scores are what its network gives in training: float32 (n, outputs)."""

    remark = ""
    """How to read the measures, a sentence for people; empty where that is plain."""

    def __init__(self, data: TaskData) -> None:
        self.data = data

    def targets(self) -> Tensor:
        """Return the training targets as `loss` takes them, one row an image."""
        return torch.from_numpy(self.data.train.targets)

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""
        raise NotImplementedError

    def measure(self, scores: Tensor, targets: NDArray[Any]) -> Mapping[str, float]:
        """Return name to value, such as "accuracy"; `targets` as the data has them."""
        raise NotImplementedError

    def check_head(self, head: nn.Module) -> None:
        """Raise UnsupportedNetwork for a last layer that cannot give what the kind answers."""

    def finish(self, tensors: Mapping[str, Tensor], head: tuple[str, ...]) -> dict[str, Tensor]:
        """Return the task's tensors by state-dict name , those under `head` so changed that the network gives answers."""
        return dict(tensors)

    def answers(self, scores: Tensor) -> Tensor:
        """Return what the network gives for these scores once `finish` has changed it."""
        return scores
