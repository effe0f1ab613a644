"""Turns output vectors into classes: probabilities, the best k, and the v2 protocol's classification strings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the probabilities of `logits`, shape (rows, classes), stable for values of any size."""
    values = logits.astype(np.float64)
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def best(values: NDArray[np.generic], k: int) -> NDArray[np.intp]:
    """Return the indices of the `k` largest of each row of `values` (rows, classes), largest first, ties by index.

    All classes when there are fewer than `k`.
    """
    return np.asarray(np.argsort(-values.astype(np.float64), axis=1, kind="stable")[:, :k])


def label_of(labels: Sequence[str], index: int) -> str:
    """Return the label of a class, or its number when the task has no labels."""
    return labels[index] if index < len(labels) else str(index)


def classification_strings(values: NDArray[np.generic], labels: Sequence[str], k: int) -> NDArray[np.object_]:
    """Return the best `k` of each row as Triton writes them: bytes "value:index" or "value:index:label", shape (rows, k)."""
    indices = best(values, k)
    strings = np.empty(indices.shape, dtype=object)
    for (row, place), index in np.ndenumerate(indices):
        suffix = f":{labels[int(index)]}" if index < len(labels) else ""
        strings[row, place] = f"{float(values[row, index]):f}:{index}{suffix}".encode()
    return strings
