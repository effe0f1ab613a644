"""What a subset scored by cross-validation, and what serving it would cost."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tuning.kinds.metric import ACCURACY, Metric

Subset = tuple[str, ...]


@dataclass(frozen=True)
class Score:
    """What the folds that were run scored, by `metric`, out of `of` folds in all."""

    folds: tuple[float, ...]
    of: int
    metric: Metric = ACCURACY

    @property
    def complete(self) -> bool:
        """Whether every fold was run."""
        return len(self.folds) == self.of

    @property
    def mean(self) -> float:
        """Mean over the folds that were run."""
        return statistics.fmean(self.folds)

    @property
    def worth(self) -> float:
        """The mean, so turned that more is better."""
        return self.metric.worth(self.mean)

    @property
    def words(self) -> str:
        """Mean and deviation with the unit, for people."""
        return self.metric.words(self.mean, self.deviation)

    @property
    def deviation(self) -> float:
        """Standard deviation over folds, 0 of a single one."""
        return statistics.stdev(self.folds) if len(self.folds) > 1 else 0.0

    @property
    def bound(self) -> float:
        """The worth if every fold that is left scored the metric's best: no run of the rest can give more."""
        return self.metric.worth((sum(self.folds) + self.metric.best * (self.of - len(self.folds))) / self.of)


@dataclass(frozen=True)
class SubsetCost:
    """What serving a task adds to what is served already.

    macs: multiply-accumulates per image after the fork. weight_bytes: stored and loaded anew. macs_share, bytes_share: of the whole
    backbone's. latency_ms: None where it was not measured. fork: where the task leaves the trunk, for people.
    """

    macs: int
    weight_bytes: int
    macs_share: float
    bytes_share: float
    latency_ms: float | None = None
    fork: str = ""


Evaluate = Callable[[Sequence[Subset]], Mapping[Subset, Score]]
CostOf = Callable[[Subset], SubsetCost]


@dataclass(frozen=True)
class Objective:
    """What a selection maximises: the worth of a score minus what serving costs, under a limit.

    macs_weight, bytes_weight: how much of the metric (accuracy is in [0, 1]) the whole backbone's MACs, or weight bytes, are worth: with
    0.05, a subset that adds a fifth of the backbone's MACs must be one point better than one that adds none. latency_budget_ms: subsets
    above it are not considered.
    """

    macs_weight: float = 0.0
    bytes_weight: float = 0.0
    latency_budget_ms: float | None = None

    @property
    def needs_cost(self) -> bool:
        """Whether it depends on anything but the score."""
        return bool(self.macs_weight or self.bytes_weight or self.latency_budget_ms is not None)

    def value(self, worth: float, cost: SubsetCost | None) -> float:
        """Return what is maximised, in units of the metric."""
        if cost is None:
            return worth
        return worth - self.macs_weight * cost.macs_share - self.bytes_weight * cost.bytes_share

    def allows(self, cost: SubsetCost | None) -> bool:
        """Return whether the latency is within the budget."""
        limit = self.latency_budget_ms
        return limit is None or cost is None or cost.latency_ms is None or cost.latency_ms <= limit


def pareto_front(points: Mapping[Subset, tuple[float, float]]) -> tuple[Subset, ...]:
    """Return the subsets that no other beats: (cost, worth) by subset, less cost and more worth being better. By rising cost."""
    front: list[Subset] = []
    best = float("-inf")
    for subset, (_, worth) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1], item[0])):
        if worth > best:
            front.append(subset)
            best = worth
    return tuple(front)
