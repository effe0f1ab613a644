"""Numbers with names and units: squared error of standardised targets, mean absolute error in the units of the data.

Training sees each value less its mean, over its standard deviation. At the end both go into the last layer, so that the network gives the
values themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from contract.kinds.values import Values
from tuning.data.folds import Fold, Rows
from tuning.data.labelled import TaskData
from tuning.errors import BadData, UnsupportedNetwork
from tuning.kinds.metric import Metric, absolute_error
from tuning.kinds.objective import Objective
from tuning.kinds.strata import draw_value_rows, value_folds

_LEAST_GAIN = 0.005  # of a standard deviation


class ValuesObjective(Objective):
    """Targets: float32 (n, V). Raises BadData for a value that is the same in all training images."""

    remark = (
        "Mean absolute error: in the units of the values; less is better. The loss is of values over their standard deviations."
    )

    def __init__(self, data: TaskData) -> None:
        super().__init__(data)
        found = data.train.targets.astype(np.float64)
        self._mean, self._deviation = found.mean(0), found.std(0)
        for name, deviation, value in zip(data.labels, self._deviation, found[0], strict=True):
            if deviation <= 1e-6 * abs(value):  # float32 tells no more apart
                raise BadData(
                    f"Data {data.name!r} has the same {name!r} in all training images, {value:g}; there is nothing to learn."
                )

    @property
    def metric(self) -> Metric:
        """The mean absolute error: of one value in its unit, of several in standard deviations of each, as their units may differ.

        A gain counts from half a per cent of a standard deviation on.
        """
        if len(self.data.labels) > 1:
            return absolute_error("standard deviations", _LEAST_GAIN)
        unit = self.data.kind.unit(0) if isinstance(self.data.kind, Values) else ""
        return absolute_error(unit, float(f"{_LEAST_GAIN * self._deviation[0]:.3g}"))

    def targets(self) -> Tensor:
        """Return the standardised training targets, float32 (n, V)."""
        return torch.from_numpy(((self.data.train.targets - self._mean) / self._deviation).astype(np.float32))

    def loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Return the mean squared error."""
        return nn.functional.mse_loss(scores, targets)

    def measure(self, scores: Tensor, targets: NDArray[Any]) -> Mapping[str, float]:
        """Return the mean absolute error in original units; of several values one each, as their units may differ."""
        errors = np.abs(self.answers(scores).numpy() - targets).mean(axis=0)
        if len(errors) == 1:
            return {"mean_absolute_error": float(errors[0])}
        return {f"mean_absolute_error_{name}": float(error) for name, error in zip(self.data.labels, errors, strict=True)}

    def score(self, scores: Tensor, targets: NDArray[Any]) -> float:
        """Return the mean absolute error: of several values over the standard deviation of each."""
        errors = np.abs(self.answers(scores).numpy() - targets).mean(axis=0)
        return float(errors[0] if len(errors) == 1 else (errors / self._deviation).mean())

    def make_folds(self, rows: Rows, count: int, seed: int) -> tuple[Fold, ...]:
        """Return folds of the places in `rows`, by chance."""
        return value_folds(len(rows), count, seed)

    def most_folds(self, rows: Rows) -> int:
        """Return how many folds of two images there are."""
        return len(rows) // 2

    def draw(self, count: int, seed: int) -> Rows:
        """Return a draw by chance."""
        return draw_value_rows(len(self.data.train), count, seed)

    def check_head(self, head: nn.Module) -> None:
        """Raise UnsupportedNetwork for a last layer without a bias, which has no room for the values' mean."""
        if getattr(head, "bias", None) is None:
            raise UnsupportedNetwork("The network's last layer has no bias, which values need; take another backbone.")

    def finish(self, tensors: Mapping[str, Tensor], head: tuple[str, ...]) -> dict[str, Tensor]:
        """Return the tensors with mean and deviation in the last layers (several answers of one network are averaged)."""
        finished, deviation, mean = dict(tensors), torch.from_numpy(self._deviation), torch.from_numpy(self._mean)
        for path in head:
            weight, bias = tensors[f"{path}.weight"], tensors[f"{path}.bias"]
            scale = deviation.reshape(-1, *[1] * (weight.ndim - 1))
            finished[f"{path}.weight"] = (weight.double() * scale).to(weight.dtype)
            finished[f"{path}.bias"] = (bias.double() * deviation + mean).to(bias.dtype)
        return finished

    def answers(self, scores: Tensor) -> Tensor:
        """Return the values in original units."""
        return scores.double() * torch.from_numpy(self._deviation) + torch.from_numpy(self._mean)

    def require_equal(self, given: Tensor, scores: Tensor) -> None:
        """Raise UnsupportedNetwork unless `given`, by the finished network, are the values for `scores`, up to a twentieth deviation."""
        away = (given.double() - self.answers(scores)).abs() / torch.from_numpy(self._deviation)
        if not bool((away < 0.05).all()):
            raise UnsupportedNetwork(
                "With the scale of the values in its last layer the network gives other numbers than in training: more follows on that "
                "layer, or the values differ by too little beside their size. Take another backbone, or values nearer to 0."
            )
