"""Tasks made from scikit-learn's handwritten digits (1,797 grey images of 8x8): real data without a download.

The images are dealt once, by a seed: a half to pretrain on (the source task "digits"), and apart from it images to train tasks on
and images to test on. Tasks change the 8x8 picture, the labels, or both, and only then is it enlarged to the backbone's input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from contract.preprocessing import Preprocessing
from tuning.data.labelled import Split, TaskData
from tuning.errors import BadData

_Pictures = NDArray[np.uint8]  # (n, 8, 8), grey
_Numbers = NDArray[np.int64]  # (n,)
_Change = Callable[[_Pictures, np.random.Generator], _Pictures]
_Labelling = Callable[[_Numbers, _Numbers], _Numbers]  # (digits, quarter turns) to targets

_SOURCE = 897
_TRAIN = 400
_TEST = 500
_NOISE_STD = 90.0  # grey levels of 255

_DIGIT_LABELS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class _DigitTask:
    """A task on the digits.

    labels: class names. change: what happens to the pictures. label: targets from digits and quarter turns.
    turned: whether every picture is first turned by a random number of quarter turns. source: trained on the source images.
    """

    labels: tuple[str, ...]
    change: _Change
    label: _Labelling
    turned: bool = False
    source: bool = False


@dataclass(frozen=True)
class _DigitParts:
    """Which images (indices into the 1,797) pretrain the source task, train tasks, and test."""

    source: _Numbers
    train: _Numbers
    test: _Numbers


def _unchanged(pictures: _Pictures, rng: np.random.Generator) -> _Pictures:
    return pictures


def _inverted(pictures: _Pictures, rng: np.random.Generator) -> _Pictures:
    return 255 - pictures


def _noisy(pictures: _Pictures, rng: np.random.Generator) -> _Pictures:
    noise = rng.normal(0.0, _NOISE_STD, pictures.shape)
    return np.clip(np.rint(pictures + noise), 0, 255).astype(np.uint8)


def _rotated(pictures: _Pictures, rng: np.random.Generator) -> _Pictures:
    return np.rot90(pictures, 1, axes=(1, 2))


def _digit(digits: _Numbers, turns: _Numbers) -> _Numbers:
    return digits


def _parity(digits: _Numbers, turns: _Numbers) -> _Numbers:
    return digits % 2


def _size_class(digits: _Numbers, turns: _Numbers) -> _Numbers:
    return (digits >= 5).astype(np.int64)


def _angle(digits: _Numbers, turns: _Numbers) -> _Numbers:
    return turns


DIGIT_TASKS: Mapping[str, _DigitTask] = MappingProxyType(
    {
        "digits": _DigitTask(_DIGIT_LABELS, _unchanged, _digit, source=True),
        "inverted": _DigitTask(_DIGIT_LABELS, _inverted, _digit),
        "noisy": _DigitTask(_DIGIT_LABELS, _noisy, _digit),
        "rotated": _DigitTask(_DIGIT_LABELS, _rotated, _digit),
        "parity": _DigitTask(("even", "odd"), _unchanged, _parity),
        "size-class": _DigitTask(("0-4", "5-9"), _unchanged, _size_class),
        "angle": _DigitTask(("0", "90", "180", "270"), _unchanged, _angle, turned=True),
    }
)


def digit_parts(seed: int = 0) -> _DigitParts:
    """Return the fixed partition of the images for `seed`: three sets without a common image."""
    order = np.random.default_rng(seed).permutation(_SOURCE + _TRAIN + _TEST).astype(np.int64)
    return _DigitParts(order[:_SOURCE], order[_SOURCE : _SOURCE + _TRAIN], order[_SOURCE + _TRAIN :])


def digit_task(name: str, preprocessing: Preprocessing, seed: int = 0) -> TaskData:
    """Return the data of the task `name` of DIGIT_TASKS, enlarged by `preprocessing`; `seed` deals, turns and disturbs.

    All tasks of one seed are tested on the same 500 images. Raises BadData for an unknown name.
    """
    task = DIGIT_TASKS.get(name)
    if task is None:
        raise BadData(f"Unknown digit task {name!r}; known are: {', '.join(DIGIT_TASKS)}.")
    pictures, digits = _load()
    parts = digit_parts(seed)
    rng = np.random.default_rng((seed, 1))  # another stream than the partition's
    train, test = (
        _make(task, pictures[part], digits[part], preprocessing, rng)
        for part in (parts.source if task.source else parts.train, parts.test)
    )
    return TaskData(name, task.labels, train, test)


def _load() -> tuple[_Pictures, _Numbers]:
    """Return all pictures in 0..255, and what digit they show."""
    bunch = load_digits()
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(np.int64)


def _make(
    task: _DigitTask, pictures: _Pictures, digits: _Numbers, preprocessing: Preprocessing, rng: np.random.Generator
) -> Split:
    turns = rng.integers(0, 4, len(digits)) if task.turned else np.zeros(len(digits), dtype=np.int64)
    turned = np.stack([np.rot90(picture, turn) for picture, turn in zip(pictures, turns, strict=True)])
    changed = task.change(turned, rng)
    images = np.stack([preprocessing(Image.fromarray(picture)) for picture in np.ascontiguousarray(changed)])
    return Split(images, task.label(digits, turns))
