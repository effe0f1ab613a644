"""Images of every form, and folders of them, are answered in this process as their networks answer them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import espalier
from contract.errors import InvalidRequest, UnknownTask
from contract.repository import Repository
from espalier.local import LocalRepository
from serving.engines.embedded import EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions
from serving.errors import NotAnImage
from tests.serving.nets import images, whole

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]
COUNT = 70  # more than two batches, and than the queue has room for
PICTURES = images(COUNT)


@pytest.fixture(scope="module")
def repo(repository: Repository) -> Iterator[LocalRepository]:
    with espalier.open(repository.path, EngineOptions(SessionStoreOptions(threads=1), max_queue_rows=8)) as opened:
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with 70 pictures, in it and in a folder in it, a text, an empty file, and what is hidden."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number, picture in enumerate(PICTURES):
        (folder / ("sub" if number % 2 else ".") / f"{number:02}.png").write_bytes(png(picture))
    (folder / "notes.txt").write_text("no picture")
    (folder / "sub" / "a,b.png").write_bytes(b"")
    (folder / ".hidden").write_text("")
    return folder


def png(picture: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def best(number: int) -> str:
    return ["cat", "dog", "emu"][int(whole("probe", PICTURES[number : number + 1]).argmax())]


def test_every_form_of_an_image_has_the_same_answer(repo: LocalRepository, tmp_path: Path) -> None:
    file = tmp_path / "0.png"
    file.write_bytes(png(PICTURES[0]))
    forms = [file, str(file), file.read_bytes(), Image.open(file), PICTURES[0], tmp_path, PICTURES[:1]]
    found = [repo.predict(form, ["probe"], 1) for form in forms]
    assert [answer.tasks for answer in found] == [found[0].tasks] * len(forms)
    assert found[0].rows == [{"probe": found[0].tasks["probe"][0]}]
    assert found[0].tasks["probe"][0].labels[0].label == best(0)
    assert (found[0].names, found[2].names) == ((str(file),), ("The image",))
    assert repo.predict(forms[:-1], ["probe"], 1).tasks["probe"] == found[0].tasks["probe"] * (len(forms) - 1)


def test_more_rows_than_the_queue_allows_come_in_their_order(repo: LocalRepository) -> None:
    found = repo.predict((picture for picture in PICTURES), ["probe", "late"], 1)
    assert [answer.labels[0].label for answer in found.tasks["probe"]] == [best(number) for number in range(COUNT)]
    assert len(found.tasks["late"]) == len(found.rows) == len(found.names) == COUNT


def test_what_is_no_image_is_named(repo: LocalRepository, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    torn = png(np.zeros((50, 50, 3), np.uint8) + images(1)[0, 0, 0])[:-40]
    (tmp_path / "empty").mkdir()
    cases: list[tuple[Any, str]] = [
        (text, f"{text} is not an image"),
        (tmp_path / "none.png", f"{tmp_path / 'none.png'} cannot be read: No such file"),
        ([PICTURES[0], torn], "image in Image 2 is damaged or truncated"),
        (Image.open(io.BytesIO(torn)), "The image is damaged or truncated"),
        ([np.zeros((3, 3))], "Image 1: An image is a uint8 array"),
        (tmp_path / "empty", "empty has no files"),
        ([[text]], "Image 1: An image"),
        (7, "not int"),
    ]
    for given, sentence in cases:
        with pytest.raises(NotAnImage, match=sentence):
            repo.predict(given)
    with pytest.raises(InvalidRequest, match="No image was given"):
        repo.predict([])


def test_a_folder_is_answered_and_kept(repo: LocalRepository, photos: Path) -> None:
    told: list[tuple[int, int]] = []
    out = photos / "answers.csv"  # in the folder, and no image of it
    rows = [*repo.predict_folder(photos, ["probe", "late"], out, progress=lambda *done: told.append(done))]
    assert told == [(32, 72), (64, 72), (72, 72)]
    found = {row.file: row for row in rows}
    assert len(found) == len(rows) == COUNT + 2
    assert {row.file for row in rows if row.error} == {"notes.txt", "sub/a,b.png"}
    assert "notes.txt is not an image" in found["notes.txt"].error
    assert found["sub/07.png"].tasks["probe"].labels[0].label == best(7)
    with out.open(newline="") as file:
        lines = {line["file"]: line for line in csv.DictReader(file)}
    assert [*lines] == [row.file for row in rows]
    assert list(lines["00.png"]) == ["file", "probe", "probe score", "late", "late score", "error"]
    for number in range(COUNT):
        line = lines[f"{'sub/' if number % 2 else ''}{number:02}.png"]
        assert line["probe"] == best(number)
        assert 0 < float(line["probe score"]) <= 1
    assert [*repo.predict_folder(photos, ["probe", "late"], out)] == []


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_run_goes_on_wherever_it_was_stopped(repo: LocalRepository, photos: Path, suffix: str) -> None:
    out = photos.parent / f"answers.{suffix}"
    top_k = 2  # of classes, which do not fit one cell
    for _ in repo.predict_folder(photos, ["probe"], out, top_k=top_k):
        pass
    whole_file = out.read_bytes()
    for end in (0, 3, 9, 20, len(whole_file) // 2, len(whole_file) - 1):
        out.write_bytes(whole_file[:end])
        left = [*repo.predict_folder(photos, ["probe"], out, top_k=top_k)]
        assert out.read_bytes() == whole_file
        assert len(left) == COUNT + 2 - max(0, whole_file[:end].count(b"\n") - (suffix == "csv"))
    first = (
        json.loads(whole_file.split(b"\n")[0]) if suffix == "jsonl" else next(csv.DictReader(io.StringIO(whole_file.decode())))
    )
    answer = first["tasks"]["probe"] if suffix == "jsonl" else json.loads(first["probe"])
    assert (len(answer["labels"]), answer["labels"][0]["label"]) == (top_k, best(0))


def test_a_file_of_others_is_left_alone(repo: LocalRepository, photos: Path, tmp_path: Path) -> None:
    for name, content in (
        ("a.csv", "some text"),
        ("b.csv", "a,b\n1,2\n"),
        ("c.jsonl", "{}\n"),
        ("d.jsonl", "text"),
        ("e.csv", 'file,"'),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(InvalidRequest, match="holds something else than answers of probe"):
            repo.predict_folder(photos, ["probe"], tmp_path / name)
        assert (tmp_path / name).read_text() == content
    with pytest.raises(InvalidRequest, match=r"ends in \.csv or \.jsonl"):
        repo.predict_folder(photos, ["probe"], tmp_path / "answers.txt")
    with pytest.raises(InvalidRequest, match="cannot be written: No such file"):
        repo.predict_folder(photos, ["probe"], tmp_path / "none" / "answers.csv")
    with pytest.raises(UnknownTask):
        repo.predict_folder(photos, ["nobody"], tmp_path / "new.csv")
    with pytest.raises(NotAnImage, match=r"cannot be read|no files"):
        repo.predict_folder(tmp_path / "nowhere")
    assert not (tmp_path / "new.csv").exists()
