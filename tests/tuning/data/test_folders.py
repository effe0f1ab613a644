"""What is in a folder of images: every file is taken or left out with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contract.preprocessing import Preprocessing
from tuning.data.folders import image_suffixes, scan
from tuning.data.labelled import folder_task
from tuning.errors import BadData

SIZE = Preprocessing(height=8, width=8, interpolation="nearest")


def _fill(folder: Path, *names: str) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (len(name), 0, 0)).save(file, "PNG")


def _taken(folder: Path) -> list[str]:
    return [image.as_posix() for image in scan(folder).images]


NAMES = st.text("ab._", min_size=1, max_size=4).filter(lambda name: name.strip("."))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@given(st.sets(st.tuples(PATHS, st.sampled_from(["png", "JFIF", "txt", "DS_Store", "db"])), max_size=8))
def test_every_file_is_taken_or_left_out(tmp_path_factory: pytest.TempPathFactory, files: set[tuple[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("any")
    for path, suffix in files:
        file = folder / f"d_{path}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    found = scan(folder)
    left_out = [name for names in found.left_out.values() for name in names]
    images = [image.as_posix() for image in found.images]
    everything = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    assert sorted(images + left_out) == everything
    assert not any(part.startswith(".") for image in images for part in image.split("/"))


def test_hidden_and_system_files_are_counted_and_not_learnt_from(tmp_path: Path) -> None:
    _fill(tmp_path, *(f"{label}/{index}.png" for label in "ab" for index in range(4)))
    _fill(tmp_path, "a/.ipynb_checkpoints/0.png", "a/._0.jpg", "a/__MACOSX/0.png", "__MACOSX/a/0.png", ".git/x.png")
    (tmp_path / "a" / "Thumbs.db").touch()
    (tmp_path / ".DS_Store").touch()
    data = folder_task(tmp_path, SIZE)
    assert data.labels == ("a", "b")
    assert len(data.train) + len(data.test) == 8
    assert len(data.skipped) == 7
    assert data.remarks[1:] == ("Left out as hidden, or of the system: 7 (.DS_Store, .git/x.png, __MACOSX/a/0.png, ...).",)


def test_other_suffixes_are_taken_where_they_can_be_read_and_named_where_not(tmp_path: Path) -> None:
    _fill(
        tmp_path, "a/1.jfif", "a/2.PNG", "a/3.mpo", "b/1.png", "b/2.webp", "b/photo.heif", "b/notes.md", "b/README", "stray.png"
    )
    data = folder_task(tmp_path, SIZE)
    assert len(data.train) + len(data.test) == 5
    assert data.remarks[1:] == (
        "Left out as of no kind of picture that can be read here (.heif, .md, no suffix): 3 (b/README, b/notes.md, b/photo.heif).",
        "Left out as in no folder of a class: 1 (stray.png).",
    )
    assert set(data.skipped) == {"b/README", "b/notes.md", "b/photo.heif", "stray.png"}
    assert {".jfif", ".jpg", ".tif", ".webp"} <= image_suffixes()
    assert not {".eps", ".h5", ".pdf", ".mpg"} & image_suffixes()


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    _fill(data, "a/1.png", "b/1.png", "b/2.png")
    _fill(elsewhere, "3.png", "deep/4.png")
    for link, target in {
        "data/a/more": elsewhere,
        "data/a/twice": elsewhere,  # its pictures would be on both sides of a split
        "data/a/others": data / "b",  # pictures of another class
        "data/a/up": data,
        "data/a/gone": tmp_path / "nowhere",
        "data/a/file.png": elsewhere / "3.png",
        "elsewhere/deep/round": elsewhere,
        "data/c": data / "b",  # a class may be a link
    }.items():
        (tmp_path / link).symlink_to(target)
    expected = ["a/1.png", "a/file.png", "a/more/3.png", "a/more/deep/4.png", "b/1.png", "b/2.png", "c/1.png", "c/2.png"]
    assert _taken(data) == expected
    (left_out,) = scan(data).left_out.values()
    assert sorted(left_out) == ["a/gone", "a/more/deep/round", "a/others", "a/twice", "a/up"]


def test_a_class_without_images_says_what_there_is_instead(tmp_path: Path) -> None:
    _fill(tmp_path, "a/1.png", "b/1.heic")
    with pytest.raises(BadData, match=r"b holds no images\. Left out as of no kind of picture .*\(\.heic\): 1 \(b/1\.heic\)"):
        folder_task(tmp_path, SIZE)


def test_pictures_of_32_bit_numbers_are_left_out_for_what_they_are(tmp_path: Path) -> None:
    _fill(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    Image.new("F", (8, 8), 0.5).save(tmp_path / "a" / "depth.tif")
    data = folder_task(tmp_path, SIZE)
    (said,) = data.remarks[1:]
    assert said.startswith("Left out as they hold 32-bit numbers, of which nothing says what is black")
    assert data.skipped == ("a/depth.tif",)
