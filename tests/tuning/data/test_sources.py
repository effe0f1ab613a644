from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.preprocessing import Preprocessing
from tuning.data.corruptions import corrupt
from tuning.data.digits import digit_task
from tuning.data.labelled import fingerprint
from tuning.data.sources import DataOptions, data_folder, load_data
from tuning.errors import BadData, BadOptions

SIZE = Preprocessing(height=16, width=16, interpolation="bilinear")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, count in (("train", 10), ("val", 4), ("test", 3)):
        for name, value in (("a", 40), ("b", 140)):
            (tmp_path / "flowers" / part / name).mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (16, 16), (value + index, 0, 0)).save(tmp_path / "flowers" / part / name / f"{index}.png")
    return tmp_path / "flowers"


def test_digits_are_what_they_were_and_the_name_says_where_from() -> None:
    data = load_data("digits:inverted", SIZE)
    assert data.name == "digits:inverted"
    assert fingerprint(data) == fingerprint(digit_task("inverted", SIZE))


def test_the_name_says_all_that_was_done() -> None:
    options = DataOptions(corruption="gaussian_noise:3", train_images=100, test_images=50, seed=2)
    data = load_data("digits:digits", SIZE, options)
    assert data.name == "digits:digits gaussian_noise:3, 100 images, 50 test images, seed 2"
    assert (len(data.train), len(data.test)) == (100, 50)
    assert set(data.train.targets.tolist()) == set(range(10))


def test_a_corruption_applies_to_training_and_test_images_alike_with_different_noise() -> None:
    clean, noisy = (
        load_data("digits:digits", SIZE, DataOptions(corruption=corruption, train_images=50, test_images=50))
        for corruption in (None, "gaussian_noise:3")
    )
    noise = [getattr(noisy, part).images.astype(int) - getattr(clean, part).images for part in ("train", "test")]
    assert np.std(noise[0]) == pytest.approx(np.std(noise[1]), rel=0.05)
    assert np.std(noise[0]) > 15
    assert not np.array_equal(noise[0][0], noise[1][0])
    assert np.array_equal(noisy.train.targets, clean.train.targets)
    assert np.array_equal(noisy.test.images, corrupt(clean.test.images, "gaussian_noise", 3, 1))


def test_growing_draws_of_one_seed_are_nested() -> None:
    draws = [load_data("digits:parity", SIZE, DataOptions(train_images=count)) for count in (20, 60)]
    small, large = ({image.tobytes() for image in data.train.images} for data in draws)
    assert small < large


def test_a_folder_with_three_parts_has_a_fixed_validation_split(folder: Path) -> None:
    data = load_data(str(folder), SIZE)
    assert data.name == "flowers"
    assert (len(data.train), len(data.test)) == (28, 6)
    assert data.validation is not None
    assert data.train.images[data.validation][:, 0, 0, 0].tolist() == [40, 41, 42, 43, 140, 141, 142, 143]
    drawn = load_data(str(folder), SIZE, DataOptions(train_images=8))
    assert (drawn.name, len(drawn.train), drawn.validation) == ("flowers, 8 images", 8, None)
    assert np.bincount(drawn.train.targets).tolist() == [4, 4]


def test_only_what_is_drawn_is_decoded(folder: Path) -> None:
    drawn = load_data(str(folder / "train"), SIZE, DataOptions(train_images=4, test_images=2))
    used = {int(image[0, 0, 0]) for split in (drawn.train, drawn.test) for image in split.images}
    assert len(used) == 6
    for file in (folder / "train").rglob("*.png"):
        with Image.open(file) as image:
            value = np.asarray(image)[0, 0, 0]
        if value not in used:
            file.write_bytes(b"broken")
    again = load_data(str(folder / "train"), SIZE, DataOptions(train_images=4, test_images=2))
    assert again.skipped == ()
    assert fingerprint(again) == fingerprint(drawn)
    assert len(load_data(str(folder / "train"), SIZE).skipped) == 14


def test_impossible_draws_say_what_is_possible(folder: Path) -> None:
    with pytest.raises(BadData, match="Cannot draw 29 of 28 training images in 2 classes; draw between 2 and 28"):
        load_data(str(folder), SIZE, DataOptions(train_images=29))


def test_glyphs_and_vtab_are_loaded_by_their_prefix(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="Unknown glyph task 'x'; known are: letters"):
        load_data("glyphs:x", SIZE)
    with pytest.raises(BadData, match=r"val200\.txt"):
        load_data(f"vtab:{tmp_path}", SIZE)
    with pytest.raises(BadData, match="CIFAR10 is not in"):
        load_data("torchvision:cifar-10", SIZE, DataOptions(folder=tmp_path))
    with pytest.raises(BadData, match="Unknown digit task 'x'; known are: digits"):
        load_data("digits:x", SIZE)


def test_unknown_prefixes_name_the_known_ones_but_a_path_may_have_a_colon(folder: Path) -> None:
    with pytest.raises(
        BadData, match=r"Unknown data source 'imagenet:1k'; .* one of digits:, emoji:, glyphs:, icons:, torchvision:, vtab:"
    ):
        load_data("imagenet:1k", SIZE)
    with pytest.raises(BadData, match="nowhere is not a folder"):
        load_data("nowhere", SIZE)
    assert load_data(str(folder.rename(folder.parent / "my:flowers")), SIZE).name == "my:flowers"


def test_options_are_checked_before_anything_is_loaded() -> None:
    for message, options in {
        "train_images must be at least 1, not 0": {"train_images": 0},
        "test_images must be at least 1, not -1": {"test_images": -1},
        r"seed must be between 0 and 2\*\*63 - 1, not -1": {"seed": -1},
        "Unknown corruption 'rain'": {"corruption": "rain:1"},
    }.items():
        with pytest.raises(BadOptions, match=message):
            replace(DataOptions(), **options)  # type: ignore[arg-type]


def test_downloads_go_to_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "espalier" / "data"
