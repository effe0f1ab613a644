"""Which rows of a table are learnt from, chosen by and tested on: as its column of splits says, else by the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuning.data.folds import Rows
from tuning.data.labelled import Draw
from tuning.data.splits import role_of
from tuning.errors import BadData

_TEST_SHARE = 5  # of so many images one is held out
_HELD = "One image of five is held out to test on, chosen by the seed."


@dataclass(frozen=True)
class TableSplits:
    """Rows of a table, ascending. validation: empty where there is no such split. remarks: what was assumed, in sentences."""

    train: Rows
    validation: Rows
    test: Rows
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class ListedImage:
    """A row of a table: its line, its image, and what its column of splits says, None where there is no such column."""

    line: int
    place: Path
    split: Any = None


def deal_rows(path: Path, listed: Sequence[ListedImage], draw: Draw) -> TableSplits:
    """Return who gets which rows of the table `path`. Raises BadData.

    A validation split without a test split is tested on. With `draw.train_images` a validation split is given up, as of folders.
    """
    rows = np.arange(len(listed), dtype=np.int64)
    if all(image.split is None for image in listed):
        train, test = _hold_out(rows, draw)
        return TableSplits(_some(train, draw, "train"), rows[:0], _some(test, draw, "test"), (_HELD, *_twice(listed)))
    roles = [_role(path, image) for image in listed]
    _refuse_shared(path, listed, roles)
    train, validation, test = (rows[[role == wanted for role in roles]] for wanted in ("train", "validation", "test"))
    if not len(train):
        raise BadData(
            f"{path} has no row of the split 'train'; its column of splits names {', '.join(sorted(set(roles)))} alone."
        )
    sentence = "Splits of the table: train to learn from, test to test on."
    if not len(test) and len(validation):
        test, validation = validation, rows[:0]
        sentence = "Splits of the table: train to learn from; val to test on, as there is no test split."
    elif not len(test):
        train, test = _hold_out(train, draw)
        sentence = f"train is the only split of the table. {_HELD}"
    elif len(validation):
        sentence = "Splits of the table: train to learn from, val to choose by, test to test on."
    if draw.train_images is not None:
        train, validation = np.sort(np.concatenate([train, validation])), rows[:0]
    return TableSplits(_some(train, draw, "train"), validation, _some(test, draw, "test"), (sentence, *_twice(listed)))


def _role(path: Path, image: ListedImage) -> str:
    role = role_of(image.split) if isinstance(image.split, str) else None
    if role is None:
        raise BadData(f"{path}, line {image.line}: {image.split!r} is no split; give train, val or test in each line.")
    return role


def _refuse_shared(path: Path, listed: Sequence[ListedImage], roles: Sequence[str]) -> None:
    """Raise BadData for a file in two splits: what was learnt by heart would be tested on."""
    first: dict[Path, tuple[str, int]] = {}
    for image, role in zip(listed, roles, strict=True):
        other, line = first.setdefault(image.place.resolve(), (role, image.line))
        if other != role:
            raise BadData(
                f"{path}, line {image.line}: the image {image.place.name!r} is in the split {role}, and by line {line} in {other}; an "
                "image can be in one of them alone."
            )


def _twice(listed: Sequence[ListedImage]) -> tuple[str, ...]:
    more = len(listed) - len({image.place.resolve() for image in listed})
    if not more:
        return ()
    apart = "" if any(image.split is not None for image in listed) else ", so that one may be learnt from and tested on"
    return (f"{more} {'lines name images' if more > 1 else 'line names an image'} that another line names, too{apart}.",)


def _hold_out(rows: Rows, draw: Draw) -> tuple[Rows, Rows]:
    order = rows[np.random.default_rng(draw.seed).permutation(len(rows))]
    held = max(1, round(len(rows) / _TEST_SHARE))
    return order[held:], order[:held]


def _some(rows: Rows, draw: Draw, which: str) -> Rows:
    """Return so many rows as are asked for, ascending; of rows that are in order, by chance."""
    wanted = draw.train_images if which == "train" else draw.test_images
    if wanted is not None and wanted > len(rows):
        raise BadData(f"{wanted} {'training' if which == 'train' else which} images were asked for; there are {len(rows)}.")
    if wanted is not None and bool((np.diff(rows) > 0).all()):
        rows = np.random.default_rng(draw.seed).permutation(rows)
    return np.sort(rows[:wanted])
