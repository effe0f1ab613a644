"""VTAB-1k (Zhai et al. 2019, arXiv 1910.04867) in the layout in which it is passed around: images and index files in one folder.

The index files are train800.txt, val200.txt, train800val200.txt and test.txt. Each line is a path from the folder and the number
of a class: "images/train/001.jpg 7".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from PIL import Image

from contract.preprocessing import Preprocessing
from tuning.data.decode import Item
from tuning.data.labelled import Draw, TaskData, read_task
from tuning.errors import BadData

_TRAIN, _VALIDATION, _BOTH, _TEST = "train800.txt", "val200.txt", "train800val200.txt", "test.txt"

# Classes of each task, by its folder's usual name: 1,000 images need not show all of them (sun397).
VTAB_CLASSES: Mapping[str, int] = MappingProxyType(
    {
        "caltech101": 102,
        "cifar": 100,
        "clevr_count": 8,
        "clevr_dist": 6,
        "diabetic_retinopathy": 5,
        "dmlab": 6,
        "dsprites_loc": 16,
        "dsprites_ori": 16,
        "dtd": 47,
        "eurosat": 10,
        "kitti": 4,
        "oxford_flowers102": 102,
        "oxford_iiit_pet": 37,
        "patch_camelyon": 2,
        "resisc45": 45,
        "smallnorb_azi": 18,
        "smallnorb_ele": 9,
        "sun397": 397,
        "svhn": 10,
    }
)


@dataclass(frozen=True)
class _Line:
    """One line of an index file. where: the file and the line's number, for messages."""

    where: str
    path: str
    label: int


def vtab_task(folder: Path, preprocessing: Preprocessing, draw: Draw | None = None) -> TaskData:
    """Return a VTAB-1k task: all 1,000 images to train on, `validation` being the rows of val200.txt; tested on test.txt.

    A folder that has only train800val200.txt for training has no fixed validation split. Labels are the numbers of the
    classes: as many as the task is known to have (VTAB_CLASSES, by the folder's name), else as many as training shows.
    Images that exist but cannot be read are skipped and named. Raises BadData: missing index files or images, bad lines,
    labels out of range, index files that contradict each other.
    """
    if not folder.is_dir():
        raise BadData(f"{folder} is not a folder; give one with {_TRAIN}, {_VALIDATION}, {_TEST} and images/.")
    train, validation = _read_training(folder)
    test = _read_index(folder / _TEST)
    name = folder.resolve().name
    classes = VTAB_CLASSES.get(name) or 1 + max(line.label for line in train + validation)
    splits = [_to_items(lines, folder, classes) for lines in (train, test, validation)]
    return read_task(
        name, [str(label) for label in range(classes)], splits[0], splits[1], preprocessing, draw or Draw(), splits[2]
    )


def _read_training(folder: Path) -> tuple[list[_Line], list[_Line]]:
    """Return the lines to train on, without and with a validation split's."""
    both = _read_index(folder / _BOTH) if (folder / _BOTH).is_file() else None
    if both is not None and not (folder / _TRAIN).is_file() and not (folder / _VALIDATION).is_file():
        return both, []
    train, validation = _read_index(folder / _TRAIN), _read_index(folder / _VALIDATION)
    twice = {line.path for line in train} & {line.path for line in validation}
    if twice:
        raise BadData(f"{folder / _VALIDATION} lists images that {_TRAIN} lists, too: {min(twice)}, for one.")
    if both is not None and sorted((line.path, line.label) for line in both) != sorted(
        (line.path, line.label) for line in train + validation
    ):
        raise BadData(f"{folder / _BOTH} does not list the same images and labels as {_TRAIN} and {_VALIDATION} together.")
    return train, validation


def _read_index(file: Path) -> list[_Line]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BadData(f"{file} is missing; a VTAB-1k folder has {_TRAIN}, {_VALIDATION} and {_TEST}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{file} cannot be read: {error}.") from error
    lines = [_parse(line, f"{file}, line {number}") for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise BadData(f"{file} lists no images.")
    return lines


def _parse(line: str, where: str) -> _Line:
    path, _, label = line.strip().rpartition(" ")
    if not path.strip() or not (label.isascii() and label.isdigit()):
        raise BadData(f"{where}: {line.strip()!r} is not a path, a space and the number of a class (0, 1, ...).")
    return _Line(where, path.strip(), int(label))


def _to_items(lines: list[_Line], folder: Path, classes: int) -> list[Item]:
    for line in lines:
        if line.label >= classes:
            raise BadData(f"{line.where}: label {line.label} is out of range; the task has classes 0 to {classes - 1}.")
        if not (folder / line.path).is_file():
            raise BadData(f"{line.where}: there is no image {folder / line.path}.")
    return [Item(line.path, line.label, partial(Image.open, folder / line.path)) for line in lines]
