"""The tasks of the study: pictures of packages (docs/guides/choose-blocks.md, "Data"), and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from contract.preprocessing import Preprocessing
from tuning.data.corruptions import corrupt, parse_corruption
from tuning.data.folds import Rows, draw_rows
from tuning.data.labelled import Draw, Split, TaskData, draw_task
from tuning.data.sources import DataOptions, load_data
from tuning.errors import BadOptions

Load = Callable[[Preprocessing, Path | None], TaskData]

_LEAST, _MOST = 30, 90  # icons of a provider to learn from
_CHOOSING = 200  # pictures of the other designer that the vendor task is scored on in searches


def load_task(name: str, preprocessing: Preprocessing, folder: Path | None = None) -> TaskData:
    """Return the data of a task whole. name: of `TASKS`, or with a corruption after it, "category gaussian_noise:3".

    folder: of the pictures, None: the user's cache folder; they are fetched where they are not there. Raises BadOptions, BadData.
    """
    task, _, corruption = name.partition(" ")
    if task not in TASKS:
        raise BadOptions(f"Unknown task {task!r}; known are: {', '.join(TASKS)}.")
    data = TASKS[task](preprocessing, folder)
    if not corruption:
        return replace(data, name=name)
    what, severity = parse_corruption(corruption)
    train = Split(corrupt(data.train.images, what, severity, 0), data.train.targets)
    return replace(data, name=name, train=train, test=Split(corrupt(data.test.images, what, severity, 1), data.test.targets))


def draw(data: TaskData, images: int, seed: int) -> TaskData:
    """Return the task with `images` pictures to learn from. A fixed validation split stays whole."""
    if data.validation is None:
        return draw_task(data, Draw(images, None, seed))
    learnt = np.setdiff1d(np.arange(len(data.train)), data.validation)
    rows = learnt[draw_rows(data.train.targets[learnt], images, seed)]
    chosen = np.concatenate([rows, data.validation])
    train = Split(data.train.images[chosen], data.train.targets[chosen])
    return replace(data, train=train, validation=np.arange(images, len(chosen), dtype=np.int64))


def _pictures(source: str) -> Load:
    return lambda preprocessing, folder: load_data(source, preprocessing, DataOptions(folder, download=True))


def _vendor_shift(preprocessing: Preprocessing, folder: Path | None) -> TaskData:
    """Google's drawings to learn from, Twitter's to choose by and to test on: what is drawn is the same, "
    "and how it is drawn is not."""
    google, twitter = (_pictures(f"emoji:{vendor}/category")(preprocessing, folder) for vendor in ("google", "twitter"))
    if google.labels != twitter.labels:
        raise BadOptions("The two designers have drawn other categories.")
    rows = draw_rows(twitter.train.targets, _CHOOSING, 0)
    images = np.concatenate([google.train.images, twitter.train.images[rows]])
    targets = np.concatenate([google.train.targets, twitter.train.targets[rows]])
    validation = np.arange(len(google.train), len(targets), dtype=np.int64)
    return replace(google, train=Split(images, targets), test=twitter.test, validation=validation)


def _rotation(preprocessing: Preprocessing, folder: Path | None) -> TaskData:
    """By how many quarters of a turn the picture was turned; which is told by what is in it, not by how it is drawn."""
    data = _pictures("emoji:google/category")(preprocessing, folder)
    labels = ("0 degrees", "90 degrees", "180 degrees", "270 degrees")
    return replace(data, labels=labels, train=_turned(data.train, 0), test=_turned(data.test, 1))


def _texture(preprocessing: Preprocessing, folder: Path | None) -> TaskData:
    """Whose icon it is. Providers with few icons are left out, and of the others no more than `_MOST` are taken."""
    data = _pictures("icons:provider")(preprocessing, folder)
    counts = np.bincount(data.train.targets, minlength=len(data.labels))
    kept = np.flatnonzero(counts >= _LEAST)
    train, test = _some_of(data.train, kept, _MOST), _some_of(data.test, kept, _MOST // 3)
    return replace(data, labels=tuple(data.labels[index] for index in kept), train=train, test=test)


def _some_of(split: Split, classes: Rows, most: int) -> Split:
    rng = np.random.default_rng(0)
    members = [rng.permutation(np.flatnonzero(split.targets == target))[:most] for target in classes]
    rows = np.sort(np.concatenate(members))
    return Split(split.images[rows], np.searchsorted(classes, split.targets[rows]).astype(np.int64))


def _turned(split: Split, seed: int) -> Split:
    quarters = np.random.default_rng(seed).integers(0, 4, len(split))
    images = np.stack([np.rot90(image, quarter) for image, quarter in zip(split.images, quarters, strict=True)])
    return Split(np.ascontiguousarray(images), quarters.astype(np.int64))


TASKS: Mapping[str, Load] = MappingProxyType(
    {
        "category": _pictures("emoji:google/category"),
        "vendor": _vendor_shift,
        "rotation": _rotation,
        "texture": _texture,
        "skin": _pictures("emoji:google/skin"),
        "places": _pictures("emoji:google/places"),
        "animals": _pictures("emoji:google/animals"),
        "twitter": _pictures("emoji:twitter/category"),
    }
)
