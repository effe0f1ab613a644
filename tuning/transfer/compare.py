"""The methods of transfer side by side: the same student, teachers and data, several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tuning.data.labelled import TaskData
from tuning.errors import BadOptions
from tuning.network.backbone import Backbone
from tuning.transfer.features import TeacherFeatures
from tuning.transfer.training import TransferOptions
from tuning.transfer.transfer import Method, Transferred, transfer_features
from tuning.transfer.weights import TeacherWeights

OnRun = Callable[[Method, int, int], None]  # (method, steps done, steps in all, over all its seeds)


@dataclass(frozen=True)
class TransferRun:
    """One training: accuracies in [0, 1] of the split named, and the weights that `aft` learned, by teacher."""

    method: Method
    seed: int
    test_accuracy: float
    train_accuracy: float
    teacher_weights: Mapping[str, TeacherWeights]


@dataclass(frozen=True)
class Spread:
    """mean and deviation (of a sample: n - 1; 0 for a single value)."""

    mean: float
    deviation: float


def run_methods(
    student: Backbone,
    features: Mapping[str, TeacherFeatures],
    data: TaskData,
    methods: Sequence[Method],
    options: TransferOptions,
    seeds: int,
    *,
    on_step: OnRun | None = None,
) -> Iterator[tuple[TransferRun, Transferred]]:
    """Train with each of `methods` and each of `seeds` seeds from `options.seed` on; yield what came out, one after the other.

    A seed decides the new head and the order of the images, alike for all methods. Raises as `transfer_features`; BadOptions.
    """
    if seeds < 1:
        raise BadOptions(f"seeds must be at least 1, not {seeds}.")
    for method in methods:
        for index in range(seeds):
            result = transfer_features(
                student,
                features,
                data,
                method,
                replace(options, seed=options.seed + index),
                on_step=_shifted(on_step, method, index, seeds),
            )
            scores, seed = result.checkpoint.scores, result.checkpoint.seed
            yield TransferRun(method, seed, scores["test_accuracy"], scores["train_accuracy"], result.teacher_weights), result


def spread(values: Sequence[float]) -> Spread:
    """Return mean and deviation of at least one value."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0)


def mean_weights(runs: Sequence[TransferRun]) -> dict[str, TeacherWeights]:
    """Return, for each teacher, the mean of every number over the runs that learned weights; empty if none did."""
    learned = [run.teacher_weights for run in runs if run.teacher_weights]
    return {name: _mean([weights[name] for weights in learned]) for name in (learned[0] if learned else {})}


def _mean(several: Sequence[TeacherWeights]) -> TeacherWeights:
    return TeacherWeights(
        dimensions=several[0].dimensions,
        mean=statistics.fmean(one.mean for one in several),
        quantiles=tuple(statistics.fmean(column) for column in zip(*(one.quantiles for one in several), strict=True)),
        above_half=statistics.fmean(one.above_half for one in several),
        share=statistics.fmean(one.share for one in several),
        share_at_start=several[0].share_at_start,
    )


def _shifted(on_step: OnRun | None, method: Method, index: int, seeds: int) -> Callable[[int, int], None] | None:
    """Return a callback for one run that counts its steps after those of the seeds before it."""
    if on_step is None:
        return None
    return lambda done, total: on_step(method, index * total + done, seeds * total)
