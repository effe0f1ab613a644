"""Every reader runs on tiny files in the set's own format on the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from contract.preprocessing import Preprocessing
from tests.tuning.data import torchvision_files as files
from tests.tuning.data.torchvision_files import LABELS
from tuning.data.labelled import Draw, TaskData
from tuning.data.torchvision_sets import (
    TORCHVISION_SETS,
    TorchvisionSet,
    find_torchvision_set,
    read_torchvision_set,
    torchvision_task,
)
from tuning.errors import BadData

SIZE = Preprocessing(height=8, width=8, interpolation="nearest")
DIGITS = tuple("0123456789")

# name: (writer, images in (train, validation among them, test), labels)
TINY: dict[str, tuple[Callable[[Path], None], tuple[int, int, int], tuple[str, ...]]] = {
    "Caltech101": (files.write_caltech, (8, 0, 2), LABELS),
    "Country211": (files.write_country, (4, 2, 2), LABELS),
    "DTD": (files.write_dtd, (10, 4, 2), LABELS),
    "EuroSAT": (files.write_eurosat, (16, 0, 4), LABELS),
    "FGVCAircraft": (files.write_aircraft, (8, 4, 4), LABELS),
    "FashionMNIST": (files.write_mnist, (20, 0, 10), tuple(datasets.FashionMNIST.classes)),
    "Food101": (files.write_food, (6, 0, 6), LABELS),
    "GTSRB": (files.write_gtsrb, (43, 0, 43), tuple(str(number) for number in range(43))),
    "Imagenette": (files.write_imagenette, (2, 0, 2), ("tench", "English springer")),
    "OxfordIIITPet": (files.write_pets, (6, 0, 6), ("Ant", "Bee")),
    "RenderedSST2": (files.write_sst, (4, 2, 2), ("negative", "positive")),
    "SUN397": (files.write_sun, (8, 0, 2), LABELS),
    "StanfordCars": (files.write_cars, (4, 0, 4), LABELS),
    "USPS": (files.write_usps, (20, 0, 10), DIGITS),
}

# Sets whose files torchvision checks: its reader with the checksums left out (a file must then only be there).
UNCHECKED: dict[str, tuple[Callable[[Path], None], tuple[int, int, int], tuple[str, ...], dict[str, Any]]] = {
    "CIFAR10": (
        files.write_cifar,
        (4, 0, 2),
        LABELS,
        {
            "train_list": [["data_batch_1", None]],
            "test_list": [["test_batch", None]],
            "meta": {"filename": "batches.meta", "key": "label_names", "md5": None},
        },
    ),
    "Flowers102": (
        files.write_flowers,
        (204, 102, 102),
        tuple(datasets.Flowers102.classes),
        {"_file_dict": {"label": ("imagelabels.mat", None), "setid": ("setid.mat", None)}},
    ),
    "STL10": (
        files.write_stl,
        (4, 0, 4),
        LABELS,
        {"train_list": [["train_X.bin", None], ["train_y.bin", None]], "test_list": [["test_X.bin", None], ["test_y.bin", None]]},
    ),
    "SVHN": (
        files.write_svhn,
        (20, 0, 10),
        DIGITS,
        {"split_list": {part: ["", f"{part}_32x32.mat", None] for part in ("train", "test")}},
    ),
}


def _check(data: TaskData, counts: tuple[int, int, int], labels: tuple[str, ...]) -> None:
    assert data.labels == labels
    assert (len(data.train), 0 if data.validation is None else len(data.validation), len(data.test)) == counts
    assert data.skipped == ()
    for split in (data.train, data.test):  # a higher class is brighter, and a class has one brightness
        brightness = [split.images[split.targets == target].mean(axis=(1, 2, 3)) for target in np.unique(split.targets)]
        assert len(brightness) == len(labels)
        assert all(np.ptp(values) < 1 for values in brightness)
        assert (np.diff([values[0] for values in brightness]) > 0).all()


def _unchecked(name: str, changes: dict[str, Any]) -> TorchvisionSet:
    reader = TORCHVISION_SETS[name].reader
    assert isinstance(reader, type)
    return replace(TORCHVISION_SETS[name], reader=type(f"Unchecked{name}", (reader,), changes))


@pytest.mark.parametrize("name", TINY)
def test_sets_are_read_from_their_own_formats(name: str, tmp_path: Path) -> None:
    write, counts, labels = TINY[name]
    write(tmp_path)
    data = torchvision_task(name, SIZE, tmp_path)
    assert data.name == name
    _check(data, counts, labels)


@pytest.mark.parametrize("name", UNCHECKED)
def test_sets_with_checksums_are_read_from_their_own_formats(name: str, tmp_path: Path) -> None:
    write, counts, labels, changes = UNCHECKED[name]
    write(tmp_path)
    _check(read_torchvision_set(name, _unchecked(name, changes), SIZE, tmp_path, False, Draw()), counts, labels)
    with pytest.raises(BadData, match=rf"{name} is not in .* \(Dataset not found or corrupted\); have it fetched"):
        torchvision_task(name, SIZE, tmp_path)


def test_a_file_that_does_not_have_its_checksum_is_noticed(tmp_path: Path) -> None:
    files.write_cifar(tmp_path)
    changes = UNCHECKED["CIFAR10"][3]
    digest = hashlib.md5((tmp_path / "cifar-10-batches-py/test_batch").read_bytes()).hexdigest()
    changed = _unchecked("CIFAR10", {**changes, "test_list": [["test_batch", digest]]})
    assert len(read_torchvision_set("CIFAR10", changed, SIZE, tmp_path, False, Draw()).test) == 2
    with (tmp_path / "cifar-10-batches-py/test_batch").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BadData, match=r"CIFAR10 is not in .*corrupted"):
        read_torchvision_set("CIFAR10", changed, SIZE, tmp_path, False, Draw())


def test_validation_rows_are_those_of_the_sets_own_split(tmp_path: Path) -> None:
    files.write_dtd(tmp_path)
    for file in (tmp_path / "dtd/dtd/images").rglob("val*.jpg"):
        files.write_image(file, 120)
    data = torchvision_task("DTD", SIZE, tmp_path)
    marked = np.abs(data.train.images.mean(axis=(1, 2, 3)) - 120) < 3
    assert data.validation is not None
    assert np.array_equal(np.flatnonzero(marked), data.validation)


def test_only_the_drawn_images_are_opened(tmp_path: Path) -> None:
    files.write_food(tmp_path)
    (tmp_path / "food-101/images/ant/train0.jpg").write_bytes(b"broken")
    skipped = [torchvision_task("Food101", SIZE, tmp_path, draw=Draw(4, 2, seed)).skipped for seed in range(10)]
    assert set(skipped) == {(), ("food-101/images/ant/train0.jpg",)}


def test_unreadable_and_missing_images_are_skipped_and_named(tmp_path: Path) -> None:
    files.write_food(tmp_path)
    (tmp_path / "food-101/images/ant/train1.jpg").write_bytes(b"broken")
    (tmp_path / "food-101/images/bee/test2.jpg").unlink()
    data = torchvision_task("Food101", SIZE, tmp_path)
    assert data.skipped == ("food-101/images/ant/train1.jpg", "food-101/images/bee/test2.jpg")
    assert (len(data.train), len(data.test)) == (5, 5)
    for file in (tmp_path / "food-101/images/ant").glob("train*"):
        file.unlink()
    with pytest.raises(BadData, match=r"Food101 in .* has no readable training image of class ant\."):
        torchvision_task("Food101", SIZE, tmp_path)


def test_the_held_out_part_of_an_unsplit_set_depends_on_the_seed_and_not_on_the_number_drawn(tmp_path: Path) -> None:
    files.write_sun(tmp_path)
    for index, file in enumerate(sorted((tmp_path / "SUN397").rglob("*.jpg"))):
        files.write_image(file, 20 * index)
    first, again, other = (
        torchvision_task("SUN397", SIZE, tmp_path, draw=draw) for draw in (Draw(), Draw(train_images=4), Draw(seed=1))
    )
    assert np.bincount(first.test.targets).tolist() == [1, 1]
    assert np.array_equal(first.test.images, again.test.images)
    assert not np.array_equal(first.test.images, other.test.images)


@pytest.mark.parametrize("name", TORCHVISION_SETS)
def test_every_set_that_is_not_there_says_so_in_one_sentence(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadData, match=rf"{name} is not in {tmp_path} \(.*\); have it fetched, or give the folder") as caught:
        torchvision_task(name, SIZE, tmp_path)
    assert "You can use" not in str(caught.value)


def test_a_download_that_fails_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of the folder")
    with pytest.raises(BadData, match=r"MNIST could not be fetched into .*file"):
        torchvision_task("MNIST", SIZE, tmp_path / "file", download=True)
    with pytest.raises(BadData, match=r"StanfordCars could not be fetched into .*: The original URL is broken"):
        torchvision_task("StanfordCars", SIZE, tmp_path, download=True)


def test_splits_with_other_classes_and_damaged_lists_are_refused(tmp_path: Path) -> None:
    files.write_dtd(tmp_path)
    (tmp_path / "dtd/dtd/labels/test1.txt").write_text("ant/test0.jpg\n")
    with pytest.raises(BadData, match="splits of DTD do not have the same classes: 2 to train on, 1 elsewhere"):
        torchvision_task("DTD", SIZE, tmp_path)
    files.write_food(tmp_path)
    (tmp_path / "food-101/meta/train.json").write_text("{")
    with pytest.raises(BadData, match="Food101 is not in"):
        torchvision_task("Food101", SIZE, tmp_path)


def test_names_are_found_whatever_their_capitals_and_dashes() -> None:
    assert [find_torchvision_set(name) for name in ("cifar10", "CIFAR-10", "oxford_iiit_pet", "dtd")] == [
        "CIFAR10", "CIFAR10", "OxfordIIITPet", "DTD",
    ]  # fmt: skip
    with pytest.raises(BadData, match="Unknown torchvision data set 'cifar'; known are: CIFAR10, CIFAR100"):
        find_torchvision_set("cifar")
