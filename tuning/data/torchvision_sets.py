"""Data sets that torchvision knows, read (and with `download` fetched) by torchvision's own classes.

Only the splits' lists and targets are read at first; what is then decoded is what a draw asks for, so that big sets work.
"""

from __future__ import annotations

import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision import datasets

from contract.preprocessing import Preprocessing
from tuning.data.decode import Item
from tuning.data.folds import draw_rows
from tuning.data.labelled import Draw, TaskData, read_task, require_all_classes
from tuning.errors import BadData, NotDownloaded

_REASON = 200  # characters of a foreign error that are passed on
_HELD_OUT = 0.2  # of every class, where a set has no test split

# What torchvision lets through: nothing there, no network, a checksum or an archive that is wrong, a damaged list of images.
_FOREIGN = (
    RuntimeError, OSError, ValueError, KeyError, TypeError, EOFError, ImportError,
    tarfile.TarError, zipfile.BadZipFile, pickle.UnpicklingError,
)  # fmt: skip


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(count))


_Arguments = Mapping[str, Any]

_TRAIN: _Arguments = {"train": True}
_NOT_TRAIN: _Arguments = {"train": False}
_VAL: _Arguments = {"split": "val"}


@dataclass(frozen=True)
class TorchvisionSet:
    """How torchvision reads a data set.

    reader: the class, called with the folder, `download` and a split's arguments.
    train, test, validation: those arguments. test None: the set is not split, and a fifth of every class is held out.
    labels: the names of the classes, where the reader does not know them.
    """

    reader: Callable[..., Any]
    train: _Arguments = field(default_factory=lambda: {"split": "train"})
    test: _Arguments | None = field(default_factory=lambda: {"split": "test"})
    validation: _Arguments | None = None
    labels: tuple[str, ...] = ()


TORCHVISION_SETS: Mapping[str, TorchvisionSet] = MappingProxyType(
    {
        "CIFAR10": TorchvisionSet(datasets.CIFAR10, _TRAIN, _NOT_TRAIN),
        "CIFAR100": TorchvisionSet(datasets.CIFAR100, _TRAIN, _NOT_TRAIN),
        "Caltech101": TorchvisionSet(datasets.Caltech101, {}, None),
        "Country211": TorchvisionSet(datasets.Country211, validation={"split": "valid"}),
        "DTD": TorchvisionSet(datasets.DTD, validation=_VAL),
        "EuroSAT": TorchvisionSet(datasets.EuroSAT, {}, None),
        "FGVCAircraft": TorchvisionSet(datasets.FGVCAircraft, validation=_VAL),
        "FashionMNIST": TorchvisionSet(datasets.FashionMNIST, _TRAIN, _NOT_TRAIN),
        "Flowers102": TorchvisionSet(datasets.Flowers102, validation=_VAL),
        "Food101": TorchvisionSet(datasets.Food101),
        "GTSRB": TorchvisionSet(datasets.GTSRB, labels=_numbers(43)),
        "Imagenette": TorchvisionSet(datasets.Imagenette, test=_VAL),
        "KMNIST": TorchvisionSet(datasets.KMNIST, _TRAIN, _NOT_TRAIN),
        "MNIST": TorchvisionSet(datasets.MNIST, _TRAIN, _NOT_TRAIN),
        "OxfordIIITPet": TorchvisionSet(datasets.OxfordIIITPet, train={"split": "trainval"}),
        "RenderedSST2": TorchvisionSet(datasets.RenderedSST2, validation=_VAL),
        "STL10": TorchvisionSet(datasets.STL10),
        "SUN397": TorchvisionSet(datasets.SUN397, {}, None),
        "SVHN": TorchvisionSet(datasets.SVHN, labels=_numbers(10)),
        "StanfordCars": TorchvisionSet(datasets.StanfordCars),
        "USPS": TorchvisionSet(datasets.USPS, _TRAIN, _NOT_TRAIN, labels=_numbers(10)),
    }
)


def find_torchvision_set(name: str) -> str:
    """Return the key of PUBLIC_SETS that is meant: capitals, dashes and underscores do not matter. Raises BadData."""
    plain = {key.lower(): key for key in TORCHVISION_SETS}
    key = plain.get(name.lower().replace("-", "").replace("_", ""))
    if key is None:
        raise BadData(f"Unknown torchvision data set {name!r}; known are: {', '.join(TORCHVISION_SETS)}.")
    return key


def torchvision_task(
    name: str, preprocessing: Preprocessing, folder: Path, *, download: bool = False, draw: Draw | None = None
) -> TaskData:
    """Return the set `name` of PUBLIC_SETS out of `folder`, where torchvision keeps it, fetched first with `download`."""
    key = find_torchvision_set(name)
    return read_torchvision_set(key, TORCHVISION_SETS[key], preprocessing, folder, download, draw or Draw())


def read_torchvision_set(
    name: str, known: TorchvisionSet, preprocessing: Preprocessing, folder: Path, download: bool, draw: Draw
) -> TaskData:
    """Return the data of `known`; its own validation split, where it has one, is behind the training images.

    Raises BadData: not there, not fetched, damaged, or splits whose classes differ. Unreadable images are skipped and named.
    """
    train, labels = _list_split(name, known, "train", folder, download)
    validation: list[Item] = []
    if known.test is None:
        train.sort(key=lambda item: item.name)  # SUN397 comes in the order of the file system
        train, test = _hold_out(train, draw.seed)
    else:
        test, test_labels = _list_split(name, known, "test", folder, download)
        _require_equal(name, labels, test_labels)
    if known.validation is not None:
        validation, validation_labels = _list_split(name, known, "validation", folder, download)
        _require_equal(name, labels, validation_labels)
    data = read_task(name, labels, train, test, preprocessing, draw, validation)
    require_all_classes(data, f"{name} in {folder}")
    return data


def _list_split(name: str, known: TorchvisionSet, part: str, folder: Path, download: bool) -> tuple[list[Item], tuple[str, ...]]:
    """Return (the images of a part, the names of the classes). part: "train", "test" or "validation"."""
    arguments: _Arguments = getattr(known, part)
    try:
        if download:
            folder.mkdir(parents=True, exist_ok=True)
        dataset = known.reader(str(folder), download=download, **arguments)
        targets = _targets(dataset)
    except _FOREIGN as error:
        raise _unreadable(name, folder, download, error) from error
    names = _file_names(dataset, folder) or [f"{part} image {row}" for row in range(len(targets))]
    items = [Item(names[row], int(target), partial(_open, dataset, row)) for row, target in enumerate(targets)]
    return items, known.labels or _class_names(dataset, targets)


def _unreadable(name: str, folder: Path, download: bool, error: BaseException) -> BadData:
    said = " ".join(str(error).split()) or type(error).__name__
    reason = said.partition(" You can use download")[0][:_REASON].rstrip(".: ")
    if download:
        return BadData(f"{name} could not be fetched into {folder}: {reason}.")
    return NotDownloaded(name, folder, reason)


def _open(dataset: Any, row: int) -> Image.Image:
    return cast(Image.Image, dataset[row][0])


def _file_names(dataset: Any, folder: Path) -> list[str]:
    """Return the paths of the images under `folder`, where the class keeps a list of them; else nothing."""
    return [os.path.relpath(file, folder) for file in getattr(dataset, "_image_files", ())]


def _targets(dataset: Any) -> NDArray[np.int64]:
    """Return the targets without decoding an image where the class keeps a list of them, under whatever name."""
    for name in ("targets", "labels", "_labels", "y"):
        if hasattr(dataset, name):
            return np.asarray(getattr(dataset, name)).astype(np.int64)
    for name in ("_samples", "samples"):
        if hasattr(dataset, name):
            return np.array([target for _, target in getattr(dataset, name)], dtype=np.int64)
    return np.array([dataset[row][1] for row in range(len(dataset))], dtype=np.int64)


def _class_names(dataset: Any, targets: NDArray[np.int64]) -> tuple[str, ...]:
    """Return the names of the classes; numbers, if the dataset knows none. Of synonyms the first is taken."""
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if not names:
        return _numbers(int(targets.max(initial=-1)) + 1)
    return tuple(name if isinstance(name, str) else str(name[0]) for name in names)


def _hold_out(items: list[Item], seed: int) -> tuple[list[Item], list[Item]]:
    targets = np.array([item.target for item in items], dtype=np.int64)
    count = max(round(_HELD_OUT * len(items)), len(np.unique(targets)))
    test = set(draw_rows(targets, count, seed).tolist())
    return [item for row, item in enumerate(items) if row not in test], [items[row] for row in sorted(test)]


def _require_equal(name: str, labels: tuple[str, ...], others: tuple[str, ...]) -> None:
    if labels != others:
        raise BadData(f"The splits of {name} do not have the same classes: {len(labels)} to train on, {len(others)} elsewhere.")
