"""Labelled images in memory, and how a folder of images becomes them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.preprocessing import Preprocessing
from tuning.errors import BadData

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})

_BROKEN = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what PIL raises on bytes that are no image
_TEST_FOLDERS = ("test", "val", "valid", "validation")


@dataclass(frozen=True, eq=False)
class Split:
    """images: uint8, (n, height, width, 3), preprocessed but not normalised. targets: int64, (n,), indices of labels."""

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            raise BadData(f"Images must be uint8 of shape (n, height, width, 3), not {self.images.dtype} {self.images.shape}.")
        if self.targets.dtype != np.int64 or self.targets.shape != self.images.shape[:1]:
            raise BadData(f"Targets must be int64 of shape ({len(self)},), not {self.targets.dtype} {self.targets.shape}.")

    def __len__(self) -> int:
        return int(self.images.shape[0])


@dataclass(frozen=True, eq=False)
class TaskData:
    """The data of one task. skipped: files that were left out because they are no readable images."""

    name: str
    labels: tuple[str, ...]
    train: Split
    test: Split
    skipped: tuple[str, ...] = ()
    validation: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if len(self.labels) < 2:
            raise BadData(f"Data {self.name!r} has {len(self.labels)} class(es); at least 2 are needed to learn anything.")
        for split in (self.train, self.test):
            if len(split) and not 0 <= int(split.targets.min()) <= int(split.targets.max()) < len(self.labels):
                raise BadData(f"Data {self.name!r} has targets outside its {len(self.labels)} labels.")


@dataclass(frozen=True)
class _Listing:
    """Image files of each class, in the order of the classes."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[tuple[Path, ...], ...]


def fingerprint(data: TaskData) -> str:
    """Return the SHA-256 (hex) of what `data` is: images, targets, labels and validation rows. Its name does not count."""
    digest = hashlib.sha256(json.dumps(data.labels).encode())
    fixed = () if data.validation is None else (data.validation,)
    for array in (data.train.images, data.train.targets, data.test.images, data.test.targets, *fixed):
        digest.update(json.dumps(array.shape).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def folder_task(path: Path, preprocessing: Preprocessing, test_fraction: float = 0.2, seed: int = 0) -> TaskData:
    """Return the data in a folder of class folders of images (ImageFolder layout); classes are the sorted folder names.

    Where there are train/ and test/ (or val/) folders of class folders, those are the splits; else `test_fraction` of every
    class is held out, chosen by `seed`. Files that are no readable images are skipped and listed in `skipped`.
    Raises BadData: not a folder, fewer than 2 classes, a class without images, test classes that training lacks.
    """
    if not 0 < test_fraction < 1:
        raise BadData(f"test_fraction must be between 0 and 1, not {test_fraction}.")
    if not path.is_dir():
        raise BadData(f"{path} is not a folder; give one that has a folder of images per class.")
    train_folder, test_folder = _find_splits(path)
    train = _list_classes(train_folder)
    if test_folder is None:
        train, test = _hold_out(train, test_fraction, seed)
    else:
        test = _matched_to(train, _list_classes(test_folder))
    train_split, skipped_train = _read(train, preprocessing)
    test_split, skipped_test = _read(test, preprocessing)
    _require_all_classes(train, train_split)
    if not len(test_split):
        raise BadData(f"{path} leaves no image to test on; add images, or raise test_fraction.")
    return TaskData(path.resolve().name, train.classes, train_split, test_split, skipped_train + skipped_test)


def _find_splits(path: Path) -> tuple[Path, Path | None]:
    """Return (training folder, test folder or None when training data must be split)."""
    if not (path / "train").is_dir():
        return path, None
    return path / "train", next((path / name for name in _TEST_FOLDERS if (path / name).is_dir()), None)


def _list_classes(folder: Path) -> _Listing:
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise BadData(f"{folder} must hold at least 2 folders, one per class, with images inside; it holds {found}.")
    files = tuple(tuple(sorted(f for f in (folder / name).rglob("*") if _looks_like_image(f))) for name in classes)
    for name, listed in zip(classes, files, strict=True):
        if not listed:
            raise BadData(f"{folder / name} holds no images (files ending in {', '.join(sorted(IMAGE_SUFFIXES))}).")
    return _Listing(folder, classes, files)


def _looks_like_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()


def _hold_out(listing: _Listing, fraction: float, seed: int) -> tuple[_Listing, _Listing]:
    """Return (train, test): of every class at least one image stays for training, and one goes to test if there are two."""
    rng = np.random.default_rng(seed)
    train, test = [], []
    for files in listing.files:
        order = rng.permutation(len(files))
        held_out = min(max(1, round(len(files) * fraction)), len(files) - 1)
        test.append(tuple(files[i] for i in sorted(order[:held_out])))
        train.append(tuple(files[i] for i in sorted(order[held_out:])))
    return _Listing(listing.folder, listing.classes, tuple(train)), _Listing(listing.folder, listing.classes, tuple(test))


def _matched_to(train: _Listing, test: _Listing) -> _Listing:
    """Return `test` in the order of the training classes; classes without test images are allowed."""
    unknown = [name for name in test.classes if name not in train.classes]
    if unknown:
        raise BadData(f"{test.folder} has classes that {train.folder} lacks: {', '.join(unknown)}.")
    files = dict(zip(test.classes, test.files, strict=True))
    return _Listing(test.folder, train.classes, tuple(files.get(name, ()) for name in train.classes))


def _read(listing: _Listing, preprocessing: Preprocessing) -> tuple[Split, tuple[str, ...]]:
    """Return the readable images, and the names of the others."""
    numbered = [(file, target) for target, files in enumerate(listing.files) for file in files]
    images = np.empty((len(numbered), preprocessing.height, preprocessing.width, 3), dtype=np.uint8)
    targets: list[int] = []
    skipped: list[str] = []
    for file, target in numbered:
        try:
            with Image.open(file) as image:
                images[len(targets)] = preprocessing(image)
            targets.append(target)
        except _BROKEN:
            skipped.append(str(file.relative_to(listing.folder)))
    return Split(images[: len(targets)], np.array(targets, dtype=np.int64)), tuple(skipped)


def _require_all_classes(listing: _Listing, split: Split) -> None:
    present = set(split.targets.tolist())
    empty = [name for index, name in enumerate(listing.classes) if index not in present]
    if empty:
        raise BadData(f"{listing.folder} has no readable training image of class {', '.join(empty)}.")
