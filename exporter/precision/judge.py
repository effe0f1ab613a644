"""Judges what int8 costs a task, on rows that calibration has not seen, and what becomes of the task then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from contract.dtypes import Array
from contract.units import percent
from exporter.precision.examples import Examples, Variant
from exporter.precision.intervals import difference, wilson

_MOST_ERROR = 0.1  # of the outputs' spread, of tasks that choose no class: as far as a server lets the answers of few bits differ


@dataclass(frozen=True)
class Trial:
    """A task in one variant. drop: the share of answers that it costs; of a task that chooses no class the error, in units of the spread.

    interval: in which the drop lies at 95 %; None of an error. accuracy: None where nobody knows what is right.
    """

    variant: Variant
    drop: float
    interval: tuple[float, float] | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What becomes of a task. trials: what was tried, in this order; the last is what was chosen, unless `variant` is fp32.

    measure: what a drop is: "accuracy", "agreement" with fp32, or "error". judged_by: the measure and why it is that, for people.
    fp32: the accuracy in fp32. images: rows it was judged on. reason: why it is not wholly in int8, a clause, or "".
    """

    task: str
    variant: Variant
    measure: str
    judged_by: str
    images: int = 0
    fp32: float | None = None
    trials: tuple[Trial, ...] = ()
    reason: str = ""


def judge(
    task: str, examples: Examples, expected: Sequence[Array], found: Mapping[Variant, Sequence[Array]], max_drop: float
) -> Verdict:
    """Return what becomes of `task`: the first variant of `found` that loses no more than `max_drop`, else fp32.

    expected: the outputs in fp32 for the rows to judge on, of (n, ...) each; found: those of the variants, in the order of trial.
    """
    measure, judged_by = _measure(expected, examples)
    limit = _MOST_ERROR if measure == "error" else max_drop
    trials: list[Trial] = []
    reasons = []
    for variant, outputs in found.items():
        trials.append(_try(measure, variant, expected, outputs, examples.targets))
        if trials[-1].drop <= limit:  # NaN is none
            break
        reasons.append(_reason(trials[-1], measure, limit))
    chosen: Variant = trials[-1].variant if trials and trials[-1].drop <= limit else "fp32"
    accuracy = _accuracy(expected[0], examples.targets) if measure == "accuracy" and examples.targets is not None else None
    return Verdict(task, chosen, measure, judged_by, len(expected[0]), accuracy, tuple(trials), ", ".join(reasons))


def _measure(expected: Sequence[Array], examples: Examples) -> tuple[str, str]:
    if not all(output.ndim == 2 and output.shape[1] > 1 and output.dtype.kind == "f" for output in expected):
        return "error", "error of the outputs: they are no vector with a number a class"
    if examples.targets is None or len(expected) > 1:
        return "agreement", f"agreement with fp32 ({examples.unlabelled or 'it has several outputs'})"
    return "accuracy", "accuracy"


def _try(measure: str, variant: Variant, expected: Sequence[Array], found: Sequence[Array], targets: Array | None) -> Trial:
    if measure == "error":
        return Trial(variant, max(_error(*pair) for pair in zip(expected, found, strict=True)))
    number = len(expected[0])
    if measure == "accuracy" and targets is not None:
        before, after = (_classes(outputs[0]) == targets for outputs in (expected, found))
        lost, won = int(np.sum(before & ~after)), int(np.sum(after & ~before))
        return Trial(variant, (lost - won) / number, difference(lost, won, number), float(np.mean(after)))
    others = max(int(np.sum(_classes(ours) != _classes(theirs))) for ours, theirs in zip(expected, found, strict=True))
    return Trial(variant, others / number, wilson(others, number))


def _classes(outputs: Array) -> Array:
    return np.asarray(outputs.argmax(axis=1))


def _accuracy(outputs: Array, targets: Array) -> float:
    return float(np.mean(_classes(outputs) == targets))


def _error(expected: Array, found: Array) -> float:
    """Return the root mean square of the difference over that of the answers' distance from their mean over rows."""
    ours, theirs = expected.astype(np.float64), found.astype(np.float64)
    spread, size = np.sqrt(np.mean((ours - ours.mean(axis=0)) ** 2)), np.sqrt(np.mean((ours - theirs) ** 2))
    return float(size / spread) if spread else (0.0 if size == 0 else np.inf)


def _reason(trial: Trial, measure: str, limit: float) -> str:
    what = {"int8": "in int8", "int8, branch in fp32": "with its branch in fp32"}[trial.variant]
    if measure == "error":
        return f"{what} its outputs are off by {trial.drop:.2g} of their spread, more than {limit:g}"
    loses = "loses" if measure == "accuracy" else "answers otherwise in"
    return f"{what} it {loses} {percent(trial.drop)} %, more than {100 * limit:g} %"
