"""Finds from which score on each label holds: where F1 is best on the fixed validation split, of which nothing was learnt."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tuning.data.folds import Rows
from tuning.data.labelled import TaskData
from tuning.errors import BadData
from tuning.training.trainer import Trained, Trainer

_WITHOUT = 0.5  # of a label that no validation image has


def learnt_rows(data: TaskData) -> Rows:
    """Return the training images outside of the fixed validation split. Raises BadData where there is none."""
    if data.validation is None:
        raise BadData(f"Data {data.name!r} has no validation split to find thresholds on.")
    return np.setdiff1d(np.arange(len(data.train), dtype=np.int64), data.validation)


def find_thresholds(trainer: Trainer, trained: Trained) -> tuple[float, ...]:
    """Return a threshold for each label, by the scores of the validation images; 0.5 of a label that none of them has."""
    data = trainer.data
    if data.validation is None:
        raise BadData(f"Data {data.name!r} has no validation split to find thresholds on.")
    scores = torch.sigmoid(trainer.logits(trained, "training", data.validation).double()).numpy()
    there = data.train.targets[data.validation] > 0
    return tuple(best_threshold(scores[:, label], there[:, label]) for label in range(len(data.labels)))


def best_threshold(scores: NDArray[np.float64], there: NDArray[np.bool_]) -> float:
    """Return where F1 is best: halfway between two scores (or 0 and the lowest), the nearest to 0.5 of several.

    scores: (n,), from 0 to 1. there: (n,), which images have the label; if none has it, the answer is 0.5.
    """
    if not there.any():
        return _WITHOUT
    levels = np.unique(np.concatenate([[0.0], scores]))
    halfway = (levels[:-1] + levels[1:]) / 2
    if not len(halfway):
        return _WITHOUT
    said = len(scores) - np.searchsorted(np.sort(scores), halfway)  # images at or above each
    right = there.sum() - np.searchsorted(np.sort(scores[there]), halfway)
    f1 = 2 * right / (said + there.sum())
    best = halfway[f1 >= f1.max() - 1e-12]
    return float(best[np.abs(best - _WITHOUT).argmin()])
