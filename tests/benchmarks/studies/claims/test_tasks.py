from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies.claims import tasks
from benchmarks.studies.claims.plan import WORDS
from benchmarks.studies.claims.tasks import TASKS, draw, load_task
from contract.preprocessing import Preprocessing
from tests.nets import tiny_data
from tuning.data.labelled import TaskData
from tuning.data.sources import DataOptions
from tuning.errors import BadOptions

SQUARE = Preprocessing(8, 8, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear")


@pytest.fixture(autouse=True)
def _pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(source: str, preprocessing: Preprocessing, options: DataOptions) -> TaskData:
        return tiny_data(classes=3, train=240, test=30, size=8, seed=len(source))

    monkeypatch.setattr(tasks, "load_data", load)


def test_every_task_has_words() -> None:
    assert TASKS.keys() == WORDS.keys()


def test_the_vendor_task_is_chosen_and_tested_on_other_drawings() -> None:
    data = load_task("vendor", SQUARE)
    google, twitter = (tiny_data(3, 240, 30, 8, len(f"emoji:{vendor}/category")) for vendor in ("google", "twitter"))
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (240 + 200, 200)
    assert np.array_equal(data.train.images[:240], google.train.images)
    assert np.array_equal(data.test.images, twitter.test.images)
    drawn = draw(data, 30, 1)
    assert drawn.validation is not None
    assert (len(drawn.train), len(drawn.validation)) == (230, 200)
    assert np.array_equal(drawn.train.images[drawn.validation], data.train.images[data.validation])
    assert np.bincount(drawn.train.targets[:30]).tolist() == [10, 10, 10]


def test_pictures_are_turned_by_the_quarters_of_their_label() -> None:
    data, upright = load_task("rotation", SQUARE), load_task("category", SQUARE)
    assert data.labels == ("0 degrees", "90 degrees", "180 degrees", "270 degrees")
    for image, quarter, before in zip(data.train.images, data.train.targets, upright.train.images, strict=True):
        assert np.array_equal(image, np.rot90(before, quarter))
    assert set(data.test.targets.tolist()) == {0, 1, 2, 3}


def test_the_texture_task_leaves_small_classes_out_and_takes_few_of_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_data(classes=3, train=240, test=30, size=8)
    few = np.concatenate([np.flatnonzero(data.train.targets == 0)[:5], np.flatnonzero(data.train.targets > 0)])
    fewer = tasks.replace(data, train=tasks.Split(data.train.images[few], data.train.targets[few]))
    monkeypatch.setattr(tasks, "load_data", lambda *_: fewer)
    monkeypatch.setattr(tasks, "_MOST", 60)
    found = load_task("texture", SQUARE)
    assert found.labels == data.labels[1:]
    assert np.bincount(found.train.targets).tolist() == [60, 60]
    assert np.bincount(found.test.targets).tolist() == [10, 10]


def test_a_corruption_disturbs_training_and_test_pictures(tmp_path: Path) -> None:
    plain, noisy = load_task("category", SQUARE), load_task("category gaussian_noise:5", SQUARE, tmp_path)
    assert noisy.name == "category gaussian_noise:5"
    for before, after in ((plain.train, noisy.train), (plain.test, noisy.test)):
        assert not np.array_equal(before.images, after.images)
        assert np.array_equal(before.targets, after.targets)


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(BadOptions, match="Unknown task 'luck'; known are: category, vendor, rotation"):
        load_task("luck", SQUARE)
    with pytest.raises(BadOptions, match="Unknown corruption 'fog'"):
        load_task("category fog:1", SQUARE)
