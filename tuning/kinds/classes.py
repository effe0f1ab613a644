"""One of several classes: cross entropy and accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from tuning.kinds.objective import Objective


class ClassesObjective(Objective):
    """Targets: int64 (n,), indices of classes."""

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the cross entropy of logits."""
        return nn.functional.cross_entropy(scores, targets)

    def measure(self, scores: Tensor, targets: NDArray[Any]) -> Mapping[str, float]:
        """Return the share of images that are put into the right class."""
        return {"accuracy": float((scores.argmax(1).numpy() == targets).mean())}
