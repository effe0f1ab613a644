from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from contract.preprocessing import Preprocessing
from tuning.data.labelled import Draw
from tuning.data.vtab import VTAB_CLASSES, vtab_task
from tuning.errors import BadData

SIZE = Preprocessing(height=8, width=8, interpolation="nearest")


def _write(folder: Path, name: str, labels: list[int], start: int) -> list[str]:
    """Write images whose red value is their number, and their index file; return its lines."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = [f"images/{start + i:03d}.png {label}" for i, label in enumerate(labels)]
    for i in range(len(labels)):
        Image.new("RGB", (8, 8), (start + i, 0, 0)).save(folder / f"images/{start + i:03d}.png")
    (folder / name).write_text("\n".join(lines) + "\n")
    return lines


@pytest.fixture
def task(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    both = _write(folder, "train800.txt", [0, 1, 2, 0, 1, 2, 0, 1], 0) + _write(folder, "val200.txt", [2, 0], 100)
    (folder / "train800val200.txt").write_text("\n".join(both))
    _write(folder, "test.txt", [0, 1, 2], 200)
    return folder


def test_all_images_are_trained_on_and_the_validation_rows_are_known(task: Path) -> None:
    data = vtab_task(task, SIZE)
    assert data.name == "mine"
    assert data.labels == ("0", "1", "2")
    assert data.train.images[:, 0, 0, 0].tolist() == [*range(8), 100, 101]
    assert data.validation is not None
    assert data.train.images[data.validation][:, 0, 0, 0].tolist() == [100, 101]
    assert data.train.targets.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert data.test.images[:, 0, 0, 0].tolist() == [200, 201, 202]


def test_a_folder_without_the_parts_has_no_fixed_validation_split(task: Path) -> None:
    (task / "train800.txt").unlink()
    (task / "val200.txt").unlink()
    data = vtab_task(task, SIZE)
    assert len(data.train) == 10
    assert data.validation is None


def test_a_draw_gives_the_fixed_validation_split_up(task: Path) -> None:
    data = vtab_task(task, SIZE, Draw(train_images=6, test_images=3))
    assert len(data.train) == 6
    assert data.validation is None
    assert set(data.train.targets.tolist()) == {0, 1, 2}


def test_an_unreadable_image_is_skipped_and_the_validation_rows_move_up(task: Path) -> None:
    (task / "images/001.png").write_bytes(b"")
    (task / "images/100.png").write_bytes(b"")
    data = vtab_task(task, SIZE)
    assert data.skipped == ("images/001.png", "images/100.png")
    assert data.validation is not None
    assert data.train.images[data.validation][:, 0, 0, 0].tolist() == [101]


def test_a_known_task_has_its_classes_even_if_training_does_not_show_them(task: Path) -> None:
    known = task.rename(task.parent / "kitti")
    assert vtab_task(known, SIZE).labels == ("0", "1", "2", "3")
    assert (len(VTAB_CLASSES), VTAB_CLASSES["sun397"]) == (19, 397)


def _append(file: str, line: str) -> Callable[[Path], object]:
    return lambda folder: (folder / file).write_text((folder / file).read_text() + line + "\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "test.txt").unlink(), r"test\.txt is missing; a VTAB-1k folder has train800\.txt"),
        (lambda folder: (folder / "val200.txt").unlink(), r"val200\.txt is missing"),
        (lambda folder: (folder / "test.txt").write_text("\n"), r"test\.txt lists no images"),
        (lambda folder: (folder / "test.txt").write_bytes(b"\xff\xfe"), r"test\.txt cannot be read"),
        (lambda folder: (folder / "images/202.png").unlink(), r"test\.txt, line 3: there is no image .*202\.png"),
        (_append("test.txt", "images/200.png"), r"test\.txt, line 4: 'images/200\.png' is not a path, a space and the number"),
        (_append("test.txt", "images/200.png -1"), r"test\.txt, line 4: .* is not a path"),
        (_append("test.txt", "images/200.png 1.5"), r"test\.txt, line 4: .* is not a path"),
        (_append("test.txt", "images/200.png 3"), r"test\.txt, line 4: label 3 is out of range; the task has classes 0 to 2"),
        (_append("val200.txt", "images/200.png 2"), r"train800val200\.txt does not list the same images and labels"),
        (_append("val200.txt", "images/000.png 0"), r"val200\.txt lists images that train800\.txt lists, too: images/000\.png"),
    ],
)
def test_damaged_folders_are_refused_with_file_and_line(task: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(task)
    with pytest.raises(BadData, match=message):
        vtab_task(task, SIZE)


def test_no_folder_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"absent is not a folder; give one with train800\.txt"):
        vtab_task(tmp_path / "absent", SIZE)
