"""Data to calibrate with: folders of images, sources as tuning takes them, rows in .npy files; and what is no such data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contract.preprocessing import Preprocessing
from contract.repository import Task, TensorSpec
from exporter.precision.errors import BadExamples
from exporter.precision.examples import Examples
from exporter.torch.calibration import CalibrationData
from tuning.data.sources import load_data

HOW = Preprocessing(8, 8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 0.5), interpolation="bilinear")
LABELS = ("cat", "ant")


def task(
    name: str = "pets", labels: tuple[str, ...] = LABELS, spec: TensorSpec | None = None, how: Preprocessing | None = HOW
) -> Task:
    spec = spec or TensorSpec("image", "UINT8", (8, 8, 3))
    output = TensorSpec(name, "FP32", (len(labels) or 2,))
    return Task(name, (), (spec,), (output,), 8, labels=labels, preprocessing=how)


def draw(file: Path, grey: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (grey, grey, grey)).save(file)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for number in range(10):
        draw(tmp_path / "pets" / "ant" / f"{number}.png", number)
        draw(tmp_path / "pets" / "cat" / f"{number}.png", 200 + number)
    return tmp_path / "pets"


def read(source: object, of: Task | None = None) -> Examples:
    return CalibrationData({None: str(source)})(of or task())


def test_images_in_folders_of_classes_are_labelled_by_name(classes: Path) -> None:
    found = read(classes)
    assert (len(found.rows.calibrate), len(found.rows.judge), found.unlabelled) == (16, 4, "")
    assert found.targets is not None
    bright = found.rows.judge.reshape(4, -1).mean(axis=1) > 100
    np.testing.assert_array_equal(found.targets, np.where(bright, 0, 1))  # a place in the labels of the task
    assert found.remarks[0] == f"{classes}: calibrated with 16 rows, judged on 4 others."


def test_labels_of_another_task_are_not_taken_for_its_own(classes: Path) -> None:
    for labels, reason in (
        (("dog", "cat"), "the labels of the data are not those of the task"),
        ((), "the task has no labels to"),
    ):
        found = read(classes, task(labels=labels))
        assert found.targets is None
        assert found.unlabelled.startswith(reason)


def test_images_without_folders_have_no_labels_and_are_dealt_in_turn(tmp_path: Path) -> None:
    for number in range(5):
        draw(tmp_path / "some" / f"{number}.png", number)
    (tmp_path / "some" / "broken.png").write_bytes(b"no image")
    found = read(tmp_path / "some")
    assert found.targets is None
    assert found.unlabelled == "the images are in no folders of classes"
    assert [rows[:, 0, 0, 0].tolist() for rows in (found.rows.calibrate, found.rows.judge)] == [[0, 2, 4], [1, 3]]
    assert "Left out as damaged or no images: 1 (broken.png)." in found.remarks


def test_a_network_that_takes_floats_gets_them_normalised(classes: Path) -> None:
    spec = TensorSpec("image", "FP32", (3, 8, 8))
    floats, bytes_ = read(classes, task(spec=spec)), read(classes)
    assert floats.rows.judge.shape == (4, 3, 8, 8)
    expected = (bytes_.rows.judge.transpose(0, 3, 1, 2) / 255 - 0.5) / np.array([0.25, 0.5, 0.5]).reshape(3, 1, 1)
    np.testing.assert_allclose(floats.rows.judge, expected, rtol=1e-5)


def test_a_data_source_is_judged_on_its_test_images() -> None:
    data = load_data("digits:parity", HOW)
    found = read("digits:parity", task(labels=data.labels))
    assert found.targets is not None
    assert (len(found.rows.calibrate), len(found.rows.judge)) == (128, len(data.test))
    np.testing.assert_array_equal(found.targets, data.test.targets)


def test_rows_of_an_array_are_dealt_in_turn(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(7 * 4, dtype=np.float32).reshape(7, 4))
    spec = TensorSpec("x", "FP32", (4,))
    found = read(tmp_path / "rows.npy", task(spec=spec, how=None))
    assert (found.rows.calibrate[:, 0] / 4).tolist() == [0, 2, 4, 6]
    assert (found.rows.judge[:, 0] / 4).tolist() == [1, 3, 5]


def test_tasks_that_take_the_same_have_the_same_rows(classes: Path) -> None:
    data = CalibrationData({None: str(classes)})
    assert data(task("one")).rows is data(task("other", labels=())).rows


def test_a_task_may_have_data_of_its_own(classes: Path) -> None:
    data = CalibrationData({"pets": str(classes)})
    data.check_tasks(["pets", "cars"])
    assert len(data(task()).rows.judge) == 4
    with pytest.raises(
        BadExamples, match=r"^cars: there is no data to calibrate and judge this task with; there is some for pets"
    ):
        data(task("cars"))
    with pytest.raises(BadExamples, match="is for the task 'pets', which does not come; these do: cars"):
        data.check_tasks(["cars"])


BAD: Mapping[str, tuple[np.ndarray, str]] = {
    "shape": (np.zeros((9, 5), np.float32), "is an array of FP32 of shape [9, 5]; the tasks take FP32 of shape [n, 4]."),
    "dtype": (np.zeros((9, 4)), "is an array of FP64 of shape [9, 4]; the tasks take FP32 of shape [n, 4]."),
    "scalar": (np.float32(1) * np.ones(()), "is an array of FP64 of shape []"),
    "one": (np.zeros((1, 4), np.float32), "is only one of the rows; at least two are needed"),
    "none": (np.zeros((0, 4), np.float32), "holds no rows; at least two are needed"),
    "nan": (np.full((4, 4), np.nan, np.float32), "holds numbers that are not finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_arrays_that_are_no_rows_of_the_task_are_refused(tmp_path: Path, name: str) -> None:
    array, reason = BAD[name]
    np.save(tmp_path / "rows.npy", array)
    with pytest.raises(BadExamples) as raised:
        read(tmp_path / "rows.npy", task(spec=TensorSpec("x", "FP32", (4,)), how=None))
    assert reason in str(raised.value)


def test_what_is_no_data_is_refused_before_anything_is_exported(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.npy").write_bytes(b"no array")
    np.save(tmp_path / "pickled.npy", np.array([{}]), allow_pickle=True)
    for name, reason in (
        ("empty", "holds no images"),
        ("none.npy", "there is no such file"),
        ("broken.npy", "is no array that"),
        ("pickled.npy", "is no array that"),
        ("nowhere", "is neither a folder of images, nor"),
        ("pics:all", "is neither a folder of images, nor"),
    ):
        with pytest.raises(BadExamples, match=reason):
            CalibrationData({None: str(tmp_path / name) if "." in name or (tmp_path / name).exists() else name})


def test_images_are_refused_where_nothing_says_how_they_become_rows(classes: Path, tmp_path: Path) -> None:
    with pytest.raises(BadExamples, match=r"give rows of UINT8 of shape \[8, 8, 3\] in a .npy file"):
        read(classes, task(how=None))
    draw(tmp_path / "single" / "one.png", 1)
    with pytest.raises(BadExamples, match="is only one of the readable images"):
        read(tmp_path / "single")
