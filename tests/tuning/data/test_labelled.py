from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contract.preprocessing import Preprocessing
from tests.nets import tiny_preprocessing
from tuning.data.digits import DIGIT_TASKS, digit_parts, digit_task
from tuning.data.labelled import Draw, Split, TaskData, draw_task, fingerprint, folder_task
from tuning.errors import BadData
from tuning.network.normalise import Normalise

pytestmark = pytest.mark.slow

SIZE = Preprocessing(height=8, width=8, interpolation="nearest")


def _write_images(folder: Path, count: int, value: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.new("RGB", (10, 12), (value, value, value)).save(folder / f"{index}.png")


def test_class_folders_become_splits(tmp_path: Path) -> None:
    _write_images(tmp_path / "b", 10, 200)
    _write_images(tmp_path / "a", 5, 100)
    data = folder_task(tmp_path, SIZE, test_fraction=0.2)
    assert data.labels == ("a", "b")
    assert np.bincount(data.train.targets).tolist() == [4, 8]
    assert np.bincount(data.test.targets).tolist() == [1, 2]
    assert data.train.images.shape == (12, 8, 8, 3)
    assert set(data.train.images[data.train.targets == 1].ravel().tolist()) == {200}


def test_a_broken_image_is_skipped_and_named(tmp_path: Path) -> None:
    _write_images(tmp_path / "a", 3, 100)
    _write_images(tmp_path / "b", 3, 200)
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "torn.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b" / "text.jpg").write_text("no image")
    (tmp_path / "b" / "notes.txt").write_text("does not claim to be an image")
    data = folder_task(tmp_path, SIZE)
    assert sorted(data.skipped) == ["a/torn.png", "b/notes.txt", "b/text.jpg"]
    assert data.remarks[1:] == (
        "Left out as of no kind of picture that can be read here (.txt): 1 (b/notes.txt).",
        "Left out as damaged or no images: 2 (a/torn.png, b/text.jpg).",
    )
    assert len(data.train) + len(data.test) == 6


def test_given_splits_are_used(tmp_path: Path) -> None:
    for name, count in (("train", 4), ("val", 2)):
        _write_images(tmp_path / name / "a", count, 100)
        _write_images(tmp_path / name / "b", count, 200)
    data = folder_task(tmp_path, SIZE)
    assert (len(data.train), len(data.test)) == (8, 4)


def _three_parts(path: Path) -> None:
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        _write_images(path / part / "a", count, 100)
        _write_images(path / part / "b", count, 200)


def test_val_beside_test_is_the_fixed_validation_split(tmp_path: Path) -> None:
    _three_parts(tmp_path)
    (tmp_path / "train" / "a" / "0.png").write_bytes(b"")
    data = folder_task(tmp_path, SIZE)
    assert (len(data.train), len(data.test)) == (11, 6)
    assert data.skipped == ("train/a/0.png",)
    assert data.validation is not None
    assert data.validation.tolist() == [7, 8, 9, 10]
    assert data.train.targets[data.validation].tolist() == [0, 0, 1, 1]


def test_validation_images_do_not_make_up_for_training_images(tmp_path: Path) -> None:
    _three_parts(tmp_path)
    for file in (tmp_path / "train" / "b").iterdir():
        file.write_bytes(b"")
    with pytest.raises(BadData, match="no readable training image of class b"):
        folder_task(tmp_path, SIZE)
    for file in (tmp_path / "val").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(BadData, match="has 0 readable validation images, and 4 others to learn from"):
        folder_task(tmp_path, SIZE)
    for name in "abcdefgh":
        _write_images(tmp_path / "val" / f"c{name}", 1, 0)
    with pytest.raises(BadData, match=r"val has classes that .*train lacks: ca, cb"):
        folder_task(tmp_path, SIZE)


def test_the_fingerprint_is_of_the_content_and_not_of_the_name() -> None:
    images, targets = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3), np.array([0, 1])
    data = TaskData("x", ("a", "b"), Split(images, targets), Split(images, targets))
    assert len(fingerprint(data)) == 64
    assert fingerprint(data) == fingerprint(replace(data, name="y", skipped=("z",)))
    flipped = np.asfortranarray(images)
    assert fingerprint(data) == fingerprint(replace(data, test=Split(flipped, targets)))
    others = [
        replace(data, labels=("a", "c")),
        replace(data, validation=np.array([0])),
        replace(data, validation=np.array([1])),
        replace(data, train=Split(images + 1, targets)),
        replace(data, test=Split(images, 1 - targets)),
        replace(data, train=Split(images.reshape(2, 4, 16, 3), targets)),
    ]
    assert len({fingerprint(other) for other in (data, *others)}) == 7


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.array([], np.int64), "has 0 readable validation images, and 3 others"),
        (np.array([0, 1, 2]), "has 3 readable validation images, and 0 others"),
        (np.array([1, 1]), "twice or outside its 3 training images"),
        (np.array([3]), "twice or outside"),
        (np.array([-1]), "twice or outside"),
        (np.array([1.0]), "int64 of shape"),
    ],
)
def test_validation_rows_are_checked(rows: np.ndarray, message: str) -> None:
    split = Split(np.zeros((3, 8, 8, 3), np.uint8), np.array([0, 1, 1]))
    with pytest.raises(BadData, match=message):
        TaskData("x", ("a", "b"), split, split, validation=rows)


def test_a_draw_of_test_images_leaves_the_fixed_validation_split() -> None:
    split = Split(np.zeros((6, 8, 8, 3), np.uint8), np.array([0, 1, 0, 1, 0, 1]))
    data = TaskData("x", ("a", "b"), split, split, validation=np.array([0, 1]))
    drawn = draw_task(data, Draw(test_images=2))
    assert (len(drawn.train), len(drawn.test)) == (6, 2)
    assert drawn.validation is data.validation
    assert draw_task(data, Draw(train_images=4)).validation is None


def test_the_held_out_images_depend_on_the_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(20):
            Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / name / f"{index}.png")
    first, again, other = (folder_task(tmp_path, SIZE, seed=seed).test.images for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_folders_that_cannot_be_trained_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="not a folder"):
        folder_task(tmp_path / "absent", SIZE)
    with pytest.raises(BadData, match=r"at least 2 folders.*it holds none"):
        folder_task(tmp_path, SIZE)
    _write_images(tmp_path / "a", 2, 0)
    with pytest.raises(BadData, match="holds only 'a'"):
        folder_task(tmp_path, SIZE)
    (tmp_path / "b").mkdir()
    with pytest.raises(BadData, match="b holds no images"):
        folder_task(tmp_path, SIZE)
    (tmp_path / "b" / "broken.png").write_bytes(b"")
    with pytest.raises(BadData, match="no readable training image of class b"):
        folder_task(tmp_path, SIZE)
    with pytest.raises(BadData, match="test_fraction"):
        folder_task(tmp_path, SIZE, test_fraction=1.0)


def test_classes_unknown_to_training_are_refused(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/c"):
        _write_images(tmp_path / name, 1, 0)
    with pytest.raises(BadData, match=r"has classes that .* lacks: c"):
        folder_task(tmp_path, SIZE)


def test_targets_outside_the_labels_are_refused() -> None:
    split = Split(np.zeros((2, 8, 8, 3), np.uint8), np.array([0, 2], np.int64))
    with pytest.raises(BadData, match="outside its 2 labels"):
        TaskData("x", ("a", "b"), split, split)


@given(st.integers(0, 2**32 - 1))
def test_digit_parts_are_disjoint_and_complete(seed: int) -> None:
    parts = digit_parts(seed)
    assert (len(parts.source), len(parts.train), len(parts.test)) == (897, 400, 500)
    assert sorted(np.concatenate([parts.source, parts.train, parts.test]).tolist()) == list(range(1797))


@pytest.mark.parametrize("name", DIGIT_TASKS)
def test_digit_tasks_are_repeatable_and_have_all_classes(name: str) -> None:
    data, again = digit_task(name, SIZE), digit_task(name, SIZE)
    assert np.array_equal(data.train.images, again.train.images)
    assert len(data.test) == 500
    assert set(data.train.targets.tolist()) == set(range(len(data.labels)))
    assert data.train.images.shape == (897 if name == "digits" else 400, 8, 8, 3)


def test_digit_tasks_are_what_their_names_say() -> None:
    digits, inverted, rotated = (digit_task(name, SIZE).test for name in ("digits", "inverted", "rotated"))
    parity, big, angle = (digit_task(name, SIZE).test for name in ("parity", "size-class", "angle"))
    assert np.array_equal(inverted.images, 255 - digits.images)
    assert np.array_equal(rotated.images, np.rot90(digits.images, 1, axes=(1, 2)))
    assert np.array_equal(parity.targets, digits.targets % 2)
    assert np.array_equal(big.targets, digits.targets >= 5)
    turned = np.stack([np.rot90(image, turn) for image, turn in zip(digits.images, angle.targets, strict=True)])
    assert np.array_equal(angle.images, turned)


def test_an_unknown_digit_task_lists_the_known() -> None:
    with pytest.raises(BadData, match="'upside-down'; known are: digits, inverted"):
        digit_task("upside-down", SIZE)


def test_normalise_is_the_textbook_formula_and_half_the_batch_is_half_the_result() -> None:
    preprocessing = tiny_preprocessing(4)
    images = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 4, 4, 3)
    result = Normalise(preprocessing)(images)
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (preprocessing.mean, preprocessing.std))
    expected = ((images / 255.0 - mean) / std).permute(0, 3, 1, 2)
    assert result.shape == (2, 3, 4, 4)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)
