"""Which training rows are learnt from and which are kept back: folds for cross-validation, and draws of fewer rows. Pure.

Test rows never come here: a search that looks at the test set reports too good a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuning.errors import BadData, BadOptions

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Fold:
    """Two sets of training rows without a common one: learn from `train`, score on `validation`. int64, ascending."""

    train: Rows
    validation: Rows


def make_folds(
    targets: Rows, count: int, seed: int, validation: Rows | None = None, labels: Sequence[str] | None = None
) -> tuple[Fold, ...]:
    """Return `count` stratified folds of the rows of `targets` (int64, (n,)), shuffled by `seed`.

    Every row is in the validation part of exactly one fold. Folds differ by at most one row, in all and within a class.
    validation: rows of a fixed validation split; then they are the only fold's validation part, whatever `count`.
    labels: names of the classes, for the error.
    Raises BadData when a class has fewer rows than there are folds, BadOptions for fewer than 2 folds.
    """
    rows = np.arange(len(targets), dtype=np.int64)
    if validation is not None:
        return (Fold(np.setdiff1d(rows, validation), np.unique(validation)),)
    if count < 2:
        raise BadOptions(f"Cross-validation needs at least 2 folds, not {count}.")
    _require_members(targets, count, labels)
    shuffled = np.random.default_rng((seed, 0)).permutation(rows)
    by_class = shuffled[np.argsort(targets[shuffled], kind="stable")]
    fold_of = np.empty(len(targets), dtype=np.int64)
    fold_of[by_class] = rows % count  # dealt like cards, class after class
    return tuple(Fold(rows[fold_of != fold], rows[fold_of == fold]) for fold in range(count))


def draw_rows(targets: Rows, count: int, seed: int, what: str = "") -> Rows:
    """Return `count` of the rows of `targets`, ascending: at least one of each class, else each class in proportion.

    Draws of one seed are nested: a smaller one is a part of every larger one, so that learning curves grow one set.
    what: "training" or "test", for the error. Raises BadData when `count` is less than the number of classes, or more than there are.
    """
    classes = len(np.unique(targets))
    if not classes <= count <= len(targets):
        images = f"{len(targets)} {what} images".replace("  ", " ")
        raise BadData(f"Cannot draw {count} of {images} in {classes} classes; draw between {classes} and {len(targets)}.")
    return np.sort(_drawing_order(targets, seed)[:count])


def _drawing_order(targets: Rows, seed: int) -> Rows:
    """Return all rows in an order whose every prefix is stratified; the first rows are one of each class.

    The j-th row of a class of n rows (j from 0) is due when a share of (j + 1/2) / n of all rows is drawn; ties by chance.
    """
    rng = np.random.default_rng((seed, 1))  # another stream than the folds'
    due = np.empty(len(targets))
    for target in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == target))
        due[members] = (np.arange(len(members)) + 0.5) / len(members)
        due[members[0]] = 0.0
    return np.lexsort((rng.random(len(targets)), due)).astype(np.int64)


def _require_members(targets: Rows, folds: int, labels: Sequence[str] | None) -> None:
    present, sizes = np.unique(targets, return_counts=True)
    if not len(present):
        raise BadData("There are no training images to make folds of.")
    smallest = int(sizes.argmin())
    size, target = int(sizes[smallest]), int(present[smallest])
    if size < folds:
        name = repr(labels[target]) if labels else str(target)
        advice = f"use at most {size} folds, or add images" if size >= 2 else "add images of it"
        raise BadData(f"Class {name} has {size} training image{'s' * (size > 1)}, too few for {folds} folds; {advice}.")
