"""Folds and draws of images that have any number of labels, or values: what `tuning.data.folds` does for classes. Pure.

Labels are dealt one after the other, the rarest first, each of its images to the fold that has the fewest of that label: iterative
stratification (Sechidis, Tsoumakas and Vlahavas, 2011). Values are dealt by chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tuning.data.folds import Fold, Rows
from tuning.errors import BadData, BadOptions

_FOLDS, _DRAWS = 0, 1  # streams of random numbers, as for classes


def fixed_fold(count: int, validation: Rows) -> tuple[Fold, ...]:
    """Return the only fold of a fixed validation split: rows out of `count`."""
    return (Fold(np.setdiff1d(np.arange(count, dtype=np.int64), validation), np.unique(validation)),)


def label_folds(targets: NDArray[np.float32], count: int, seed: int, labels: Sequence[str]) -> tuple[Fold, ...]:
    """Return `count` folds of the rows of `targets`, (n, labels) of 1 or 0, shuffled by `seed`.

    Every label is in what each fold learns from. Raises BadData for a label with fewer images than there are folds, or whose images no
    dealing spreads; BadOptions for fewer than 2 folds.
    """
    _require_two(count)
    there: NDArray[np.bool_] = targets > 0
    for name, size in zip(labels, there.sum(axis=0).tolist(), strict=True):
        if size < count:
            advice = f"use at most {size} folds, or add images" if size >= 2 else "add images of it"
            images = f"{size} training image{'s' * (size != 1)}"
            raise BadData(f"Label {name!r} has {images}, too few for {count} folds; {advice}.")
    fold_of = _deal(there, count, np.random.default_rng((seed, _FOLDS)))
    folds = _as_folds(fold_of, count)
    for fold in folds:
        missing = np.flatnonzero(there[fold.train].sum(axis=0) == 0)
        if len(missing):
            name = labels[missing[0]]
            raise BadData(f"All training images of the label {name!r} are in one of {count} folds; add images of it alone.")
    return folds


def value_folds(rows: int, count: int, seed: int) -> tuple[Fold, ...]:
    """Return `count` folds of so many rows, by chance. Raises BadData for fewer than two rows a fold, BadOptions for fewer than 2 folds."""
    _require_two(count)
    if rows < 2 * count:
        raise BadData(f"There are {rows} training images, too few for {count} folds; add images, or use fewer folds.")
    fold_of = np.empty(rows, dtype=np.int64)
    fold_of[np.random.default_rng((seed, _FOLDS)).permutation(rows)] = np.arange(rows) % count
    return _as_folds(fold_of, count)


def draw_label_rows(targets: NDArray[np.float32], count: int, seed: int) -> Rows:
    """Return `count` of the rows, ascending: at least one of each label, else about in proportion. Draws of one seed are nested.

    Raises BadData for an impossible number.
    """
    rng = np.random.default_rng((seed, _DRAWS))
    due = np.full(len(targets), np.inf)
    alone = ~targets.any(axis=1)
    for members in (*(targets.T > 0), alone):  # images without a label are drawn like those of one more
        rows = rng.permutation(np.flatnonzero(members))
        if len(rows):
            when = (np.arange(len(rows)) + 0.5) / len(rows)
            when[0] = 0.0
            due[rows] = np.minimum(due[rows], when)
    return _first(np.lexsort((rng.random(len(targets)), due)), count, int((due == 0).sum()), "to have each label")


def draw_value_rows(rows: int, count: int, seed: int) -> Rows:
    """Return `count` of so many rows, ascending. Draws of one seed are nested. Raises BadData for an impossible number."""
    return _first(np.random.default_rng((seed, _DRAWS)).permutation(rows), count, 2, "to learn from")


def _deal(there: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the fold of each row."""
    fold_of = np.full(len(there), -1, dtype=np.int64)
    have = np.zeros((count, there.shape[1]), dtype=np.int64)
    sizes, order = np.zeros(count, dtype=np.int64), rng.permutation(len(there))
    while True:
        left = there[fold_of < 0].sum(axis=0)
        label = int(np.where(left > 0, left, len(there) + 1).argmin()) if left.any() else None
        members = [row for row in order if fold_of[row] < 0 and (label is None or there[row, label])]
        for row in members:
            others = have[:, there[row]].sum(axis=1)
            wanted = sizes if label is None else have[:, label]
            fold = int(np.lexsort((rng.random(count), sizes, others, wanted))[0])
            fold_of[row] = fold
            have[fold] += there[row]
            sizes[fold] += 1
        if label is None:
            return fold_of


def _as_folds(fold_of: NDArray[np.int64], count: int) -> tuple[Fold, ...]:
    rows = np.arange(len(fold_of), dtype=np.int64)
    return tuple(Fold(rows[fold_of != fold], rows[fold_of == fold]) for fold in range(count))


def _first(order: NDArray[np.int64], count: int, least: int, why: str) -> Rows:
    if not least <= count <= len(order):
        raise BadData(f"Cannot draw {count} of {len(order)} training images; draw between {least}, {why}, and {len(order)}.")
    return np.sort(order[:count]).astype(np.int64)


def _require_two(count: int) -> None:
    if count < 2:
        raise BadOptions(f"Cross-validation needs at least 2 folds, not {count}.")
