"""Answers of engines and networks, compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.models.accuracy import Deviation, deviation, mean_deviation
from benchmarks.repository.networks import Answers, Feed
from contract.dtypes import Array
from contract.plan import ExecutionPlan
from serving.engines.base import Engine


async def answer_of(engine: Engine, plan: ExecutionPlan, feed: Feed) -> Answers:
    """Return what `engine` answers. Raises the error of an output that could not be computed."""
    answer = await engine.infer(plan, feed)
    for error in answer.errors.values():
        raise error
    return dict(answer.outputs)


def differs(variant: str, expected: Answers, answers: Answers, tolerance: float) -> str:
    """Return a sentence where `answers` are others than `expected`, by output."""
    for name, right in expected.items():
        difference = _difference(right, answers[name])
        if not difference <= tolerance:
            return f"{name}: {variant} and shared differ by {difference:.1e} of the largest number; their times do not compare."
    return ""


def _difference(left: Array, right: Array) -> float:
    """Return the largest difference over the largest number; of what is no float, the share of places that differ."""
    if left.shape != right.shape:
        return float("inf")
    if not left.size:
        return 0.0
    if left.dtype.kind != "f":
        return float(np.mean(left != right))
    numbers, others = (np.nan_to_num(values.astype(np.float64)) for values in (left, right))
    return float(np.abs(numbers - others).max() / (np.abs(numbers).max() or 1.0))


def deviation_of(expected: Sequence[Answers], found: Sequence[Answers]) -> Deviation | None:
    """Return how far `found`, answers to several requests, are from `expected`; None where no output is a float."""
    tasks = []
    for name, first in expected[0].items():
        if first.dtype.kind != "f" or len({answers[name].shape for answers in (*expected, *found)}) > 1:
            continue
        left, right = (
            np.concatenate([answers[name].reshape(len(answers[name]), -1) for answers in one]).astype(np.float32)
            for one in (expected, found)
        )
        if left.size and np.abs(left).max() > 0:
            tasks.append(deviation(left, right))
    return mean_deviation(tasks) if tasks else None
