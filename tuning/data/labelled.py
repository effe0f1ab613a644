"""Labelled images in memory, and how a folder of images becomes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contract.kinds.classes import Classes
from contract.kinds.kind import Kind
from contract.kinds.labels import Labels
from contract.preprocessing import Preprocessing
from tuning.data.decode import Item, decode, require_memory
from tuning.data.folders import FolderContents, scan
from tuning.data.folds import draw_rows
from tuning.data.left_out import LeftOut, sentences, together
from tuning.data.splits import find_layout
from tuning.errors import BadData

_NAMED = 5  # how many classes a sentence names at most


@dataclass(frozen=True, eq=False)
class Split:
    """images: uint8, (n, height, width, 3), preprocessed but not normalised. targets: of classes int64, (n,), indices of labels; of
    other kinds float32, (n, labels): 1 or 0 for each label, or the values.
    """

    images: NDArray[np.uint8]
    targets: NDArray[Any]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            raise BadData(f"Images must be uint8 of shape (n, height, width, 3), not {self.images.dtype} {self.images.shape}.")
        if self.targets.dtype == np.float32 and self.targets.ndim == 2 and len(self.targets) == len(self):
            return
        if self.targets.dtype != np.int64 or self.targets.shape != self.images.shape[:1]:
            raise BadData(f"Targets must be int64 of shape ({len(self)},), not {self.targets.dtype} {self.targets.shape}.")

    def __len__(self) -> int:
        return int(self.images.shape[0])


@dataclass(frozen=True, eq=False)
class TaskData:
    """The data of one task.

    skipped: files that were left out, for whatever reason. remarks: what was assumed, and what was left out why, in sentences.
    validation: int64, (m,), rows of `train` that are the set's fixed validation split; None where folds have to be made.
    kind: how people read what the task answers: Classes, Labels or Values. labels: of values their names.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    test: Split
    skipped: tuple[str, ...] = ()
    validation: NDArray[np.int64] | None = None
    remarks: tuple[str, ...] = ()
    kind: Kind = field(default_factory=Classes)

    def __post_init__(self) -> None:
        if not isinstance(self.kind, Classes):
            self._check_outputs()
            if self.validation is not None:
                self._check_validation(self.validation)
            return
        if len(self.labels) < 2:
            raise BadData(f"Data {self.name!r} has {len(self.labels)} class(es); at least 2 are needed to learn anything.")
        for split in (self.train, self.test):
            if len(split) and not 0 <= int(split.targets.min()) <= int(split.targets.max()) < len(self.labels):
                raise BadData(f"Data {self.name!r} has targets outside its {len(self.labels)} labels.")
        if self.validation is not None:
            self._check_validation(self.validation)

    def _check_outputs(self) -> None:
        least = 2 if isinstance(self.kind, Labels) else 1
        if len(self.labels) < least:
            raise BadData(f"Data {self.name!r} has {len(self.labels)} {self.kind.word()}; at least {least} are needed.")
        for split in (self.train, self.test):
            if split.targets.shape != (len(split), len(self.labels)) or not np.isfinite(split.targets).all():
                raise BadData(
                    f"Data {self.name!r} needs a finite target for each image and each of its {len(self.labels)} labels."
                )

    def _check_validation(self, rows: NDArray[np.int64]) -> None:
        if rows.dtype != np.int64 or rows.ndim != 1:
            raise BadData(f"Validation rows must be int64 of shape (m,), not {rows.dtype} {rows.shape}.")
        others = len(self.train) - len(rows)
        if not len(rows) or others < 1:
            raise BadData(f"Data {self.name!r} has {len(rows)} readable validation images, and {others} others to learn from.")
        if len(np.unique(rows)) < len(rows) or rows.min() < 0 or rows.max() >= len(self.train):
            raise BadData(f"Data {self.name!r} has validation rows twice or outside its {len(self.train)} training images.")


@dataclass(frozen=True)
class Draw:
    """How much of the data to use: stratified draws of so many training and test images, fixed by the seed; None: all."""

    train_images: int | None = None
    test_images: int | None = None
    seed: int = 0


def require_classes(kind: Kind, doing: str) -> None:
    """Raise BadData for tasks of other kinds than classes. doing: what cannot be done with them, as in "searching blocks"."""
    if not isinstance(kind, Classes):
        raise BadData(f"{doing} is for classes so far; tasks of the kind {kind.word()!r} can be fitted alone.")


def fingerprint(data: TaskData) -> str:
    """Return the SHA-256 (hex) of what `data` is: images, targets, labels and validation rows. Its name does not count."""
    digest = hashlib.sha256(json.dumps(data.labels).encode())
    fixed = () if data.validation is None else (data.validation,)
    for array in (data.train.images, data.train.targets, data.test.images, data.test.targets, *fixed):
        digest.update(json.dumps(array.shape).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def draw_task(data: TaskData, draw: Draw) -> TaskData:
    """Return the part of `data` that `draw` asks for. With `train_images`, a fixed validation split is given up.

    Few images are better used by cross-validation than cut in two again. Raises BadData for impossible numbers.
    """
    test = _draw_split(data.test, draw.test_images, draw.seed, "test")
    if draw.train_images is None:
        return replace(data, test=test)
    train = _draw_split(data.train, draw.train_images, draw.seed, "training")
    return replace(data, train=train, test=test, validation=None)


def read_task(
    name: str,
    labels: Sequence[str],
    train: Sequence[Item],
    test: Sequence[Item],
    preprocessing: Preprocessing,
    draw: Draw,
    validation: Sequence[Item] = (),
    left_out: LeftOut = MappingProxyType({}),
) -> TaskData:
    """Decode what `draw` asks for, as `draw_task` does it, and nothing else; `validation` is put behind `train`.

    Unreadable images are skipped and named, with those `left_out` already. Raises BadData for impossible draws and for more images than
    memory should hold.
    """
    fixed = draw.train_images is None and len(validation) > 0
    train_items = _draw_items([*train, *validation], draw.train_images, draw.seed, "training")
    test_items = _draw_items(test, draw.test_images, draw.seed, "test")
    require_memory(len(train_items) + len(test_items), preprocessing)
    train_split, rows, unread = _read(train_items, preprocessing)
    test_split, _, unread_test = _read(test_items, preprocessing)
    validation_rows = np.flatnonzero(rows >= len(train)) if fixed else None
    left_out = together(left_out, unread, unread_test)
    skipped = tuple(name for names in left_out.values() for name in names)
    return TaskData(name, tuple(labels), train_split, test_split, skipped, validation_rows, sentences(left_out))


def require_all_classes(data: TaskData, where: str) -> None:
    """Raise BadData unless there are a test image and an image of every class to learn from (validation rows do not count)."""
    kept_back = () if data.validation is None else data.validation
    counts = np.bincount(np.delete(data.train.targets, kept_back), minlength=len(data.labels))
    empty = ", ".join(data.labels[target] for target in np.flatnonzero(counts == 0)[:_NAMED])
    if empty:
        raise BadData(" ".join([f"{where} has no readable training image of class {empty}.", *data.remarks]))
    if not len(data.test):
        raise BadData(" ".join([f"{where} leaves no readable image to test on; add images.", *data.remarks]))


@dataclass(frozen=True)
class _Listing:
    """Image files of each class, in the order of the classes, relative to the data's folder. folder: of the classes."""

    folder: Path
    classes: tuple[str, ...]
    files: tuple[tuple[PurePath, ...], ...]

    def items(self, root: Path) -> list[Item]:
        """Return the images in the data's folder `root`."""
        numbered = ((file, target) for target, files in enumerate(self.files) for file in files)
        return [Item(file.as_posix(), target, partial(Image.open, root / file)) for file, target in numbered]


def folder_task(
    path: Path,
    preprocessing: Preprocessing,
    test_fraction: float = 0.2,
    seed: int = 0,
    train_images: int | None = None,
    test_images: int | None = None,
) -> TaskData:
    """Return the data in a folder of class folders of images (ImageFolder layout); classes are the sorted folder names.

    Where there are folders that are splits by their names (train, Testing, val2017) and hold class folders, those are the splits
    (`tuning.data.splits`); a validation split beside a test split is the fixed one, put behind the training images. Without a test split
    the validation split is what is tested on; without both, `test_fraction` of every class is held out, chosen by `seed`.
    train_images, test_images: only so many, drawn by `seed` before anything is decoded. What is left out is listed in `skipped`.
    Raises BadData: not a folder, fewer than 2 classes, a class without images, classes that training lacks, splits or classes.
    """
    if not 0 < test_fraction < 1:
        raise BadData(f"test_fraction must be between 0 and 1, not {test_fraction}.")
    if not path.is_dir():
        raise BadData(f"{path} is not a folder; give one that has a folder of images per class.")
    contents = scan(path)
    layout = find_layout(contents, path)
    train = _list_classes(contents, path, layout.train)
    validation = _matched_to(train, _list_classes(contents, path, layout.validation)) if layout.validation else None
    if layout.test is None:
        train, test = _hold_out(train, test_fraction, seed)
    else:
        test = _matched_to(train, _list_classes(contents, path, layout.test))
    left_out = together(contents.left_out, _outside(contents, [train, test, *([validation] if validation else [])]))
    draw, name, kept = Draw(train_images, test_images, seed), path.resolve().name, validation.items(path) if validation else []
    data = read_task(name, train.classes, train.items(path), test.items(path), preprocessing, draw, kept, left_out)
    require_all_classes(data, str(path))
    return replace(data, remarks=(layout.sentence, *data.remarks))


def _list_classes(contents: FolderContents, path: Path, part: PurePath) -> _Listing:
    depth, folder = len(part.parts), path / part
    classes = tuple(place.name for place in contents.folders if place.parent == part)
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise BadData(f"{folder} must hold at least 2 folders, one per class, with images inside; it holds {found}.")
    files: dict[str, list[PurePath]] = {name: [] for name in classes}
    for image in contents.images:
        if image.is_relative_to(part) and len(image.parts) > depth + 1:
            files[image.parts[depth]].append(image)
    for name, listed in files.items():
        if not listed:
            raise BadData(" ".join([f"{folder / name} holds no images.", *sentences(contents.left_out)]))
    return _Listing(folder, classes, tuple(map(tuple, files.values())))


def _outside(contents: FolderContents, listings: Sequence[_Listing]) -> LeftOut:
    """Return the images that belong to none of `listings`."""
    taken = {file for listing in listings for files in listing.files for file in files}
    found = tuple(image.as_posix() for image in contents.images if image not in taken)
    return {"as in no folder of a class": found} if found else {}


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


def _read(items: Sequence[Item], preprocessing: Preprocessing) -> tuple[Split, NDArray[np.int64], LeftOut]:
    """Return the readable images, which rows of `items` they are, and the others."""
    images, rows, left_out = decode(items, preprocessing)
    return Split(images, np.array([items[row].target for row in rows], dtype=np.int64)), rows, left_out


def _draw_items(items: Sequence[Item], count: int | None, seed: int, what: str) -> Sequence[Item]:
    targets = np.array([item.target for item in items], dtype=np.int64)
    return items if count is None else [items[row] for row in draw_rows(targets, count, seed, what)]


def _draw_split(split: Split, count: int | None, seed: int, what: str) -> Split:
    rows = slice(None) if count is None else draw_rows(split.targets, count, seed, what)
    return Split(split.images[rows], split.targets[rows])
