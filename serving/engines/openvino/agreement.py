"""Whether what a segment gives is near enough to what ONNX Runtime gives in fp32. Pure functions."""

from __future__ import annotations

import numpy as np

from contract.dtypes import Array
from contract.repository.model import Task, TensorSpec

BF16_ALLOWED = 0.10  # of the spread
# Between these two a difference of rounding is no other answer: the two best of a classifier's scores, in units of their spread.
_TIE = 0.02
_IS_CLASSES = ("logits", "probabilities", "independent", "log_probabilities")


def difference(right: Array, found: Array, typical: bool) -> float:
    """Return by how much `found` differs from `right` in units of its spread, its standard deviation; inf where shapes or NaNs differ.

    typical: the root of the mean square, for what goes on to other segments, whose largest values round most; else the largest one.
    """
    if right.shape != found.shape or right.dtype != found.dtype:
        return float("inf")
    wanted, given = right.astype(np.float64), found.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.where((wanted == given) | (np.isnan(wanted) & np.isnan(given)), 0.0, np.abs(wanted - given))
    most = float(np.sqrt(np.mean(gap**2)) if typical else gap.max(initial=0.0))
    spread = _spread(wanted)
    if not np.isfinite(most):
        return float("inf")
    return most / spread if spread else (0.0 if most == 0 else float("inf"))


def first_class_differs(right: Array, found: Array) -> bool:
    """Return whether a row of `found`, scores of shape (n, classes), has another best class than in `right`, where that is no tie."""
    wanted, given = right.astype(np.float64), found.astype(np.float64)
    best = wanted.argmax(axis=1)
    rows = np.arange(len(wanted))
    lead = wanted[rows, best] - wanted[rows, given.argmax(axis=1)]
    return bool((lead > _TIE * _spread(wanted)).any())


def is_classes(task: Task, spec: TensorSpec) -> bool:
    """Return whether the output `spec` of `task` has a score for each of several classes."""
    return len(spec.shape) == 1 and spec.shape[0] != 1 and (bool(task.labels) or task.scores in _IS_CLASSES)


def _spread(values: Array) -> float:
    finite = values[np.isfinite(values)]
    return max(float(finite.std()), 1e-6 * float(np.abs(finite).max())) if finite.size else 0.0
