"""Several images in one form: answers in order, and limits that hold before anything is decoded."""

from __future__ import annotations

import gzip
import io
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contract.errors import InvalidRequest
from contract.repository import Repository
from serving.engines.in_memory import InMemoryEngine
from serving.errors import BodyTooLarge
from serving.protocol.http.multipart import File, read_files
from serving.server import BackgroundServer
from tests.serving.nets import LAYERS, TASK_NAMES, images
from tests.serving.protocol.http.test_http import PICTURE, Http, png

BOUNDARY = "x1y2"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def form(*files: tuple[str, bytes], end: bool = True) -> bytes:
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'.encode()
        + b"Content-Type: image/png\r\n\r\n" + data + b"\r\n"
        for name, data in files
    ]  # fmt: skip
    return b"".join(parts) + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


PICTURES = [png(image) for image in images(3)]


def post(server: BackgroundServer, body: Any, path: str = "/predict", **headers: str) -> tuple[int, Any]:
    ask = Http(server)
    answer = ask("POST", path, body, **{"Content_Type": FORM, **headers})
    ask.connection.close()
    return answer


def test_files_are_answered_in_order_and_the_trunk_runs_once_for_each(server: BackgroundServer) -> None:
    status, answer = post(server, form(("b.png", PICTURES[0]), ("a.png", PICTURES[1]), ("a.png", PICTURES[2])))
    assert status == 200
    assert [image["filename"] for image in answer["images"]] == ["b.png", "a.png", "a.png"]
    assert sum(run["rows"] for run in answer["segments"] if run["segment"] == "trunk") == 3
    for image, picture in zip(answer["images"], PICTURES, strict=True):
        _, alone = post(server, picture, Content_Type="image/png")
        assert image["tasks"].keys() == alone["tasks"].keys() == set(TASK_NAMES)
        for task, found in image["tasks"].items():
            expected = alone["tasks"][task]
            assert [item["label"] for item in found["labels"]] == [item["label"] for item in expected["labels"]]
            np.testing.assert_allclose(
                [item["score"] for item in found["labels"]], [item["score"] for item in expected["labels"]], rtol=1e-5
            )


def test_answers_say_versions_and_where_the_time_went(server: BackgroundServer) -> None:
    _, alone = post(server, PICTURE, Content_Type="image/png")
    _, several = post(server, form(("a", PICTURE)))
    for answer, tasks in ((alone, alone["tasks"]), (several, several["images"][0]["tasks"])):
        assert {task["version"] for task in tasks.values()} == {"1"}
        timings = answer["timings"]
        assert timings["total_ms"] == answer["milliseconds"] >= timings["compute_ms"] + timings["decode_ms"] > 0
        assert timings["compute_ms"] == pytest.approx(sum(run["milliseconds"] for run in answer["segments"]), abs=0.01)


def test_forms_of_other_clients_work_compressed_chunked_and_for_one_task(server: BackgroundServer) -> None:
    body = form(("a", PICTURES[0]), ("b", PICTURES[1]))
    for sent, headers in ((gzip.compress(body), {"Content_Encoding": "gzip"}), (iter([body[:100], body[100:]]), {})):
        status, answer = post(server, sent, "/predict/late?top_k=1", **headers)
        assert (status, [list(image["tasks"]) for image in answer["images"]]) == (200, [["late"], ["late"]])
        assert [len(image["tasks"]["late"]["labels"]) for image in answer["images"]] == [1, 1]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        (form(("a.png", PICTURE), ("B.PNG", b"x")), FORM, 400, "File 2 ('B.PNG') is not an image; send the bytes of one (PNG"),
        (form(("a.png", PICTURE[:100])), FORM, 400, "The PNG image in file 1 ('a.png') is damaged or truncated"),
        (form(("", b"")), FORM, 400, "File 1 ('') is empty"),
        (form(("a", PICTURE), end=False), FORM, 400, "The form is truncated: its last boundary is missing"),
        (form(("a", PICTURE))[:-20], FORM, 400, "The form is truncated"),
        (b"hello", FORM, 400, "The form is malformed"),
        (b"", FORM, 400, "The form is truncated"),
        (form(), FORM, 400, "The form"),
        (form(("a", PICTURE)), "multipart/form-data", 400, "multipart/form-data with a boundary"),
        (form(("a", PICTURE)), "multipart/mixed; boundary=x1y2", 400, "multipart/form-data with a boundary"),
        (form(("a", PICTURE)), "multipart/form-data; boundary=" + "b" * 5000, 400, "The form is malformed"),
        (form(*[("a", PICTURE)] * 65), FORM, 400, "more than the limit of 64 files"),
        (form(("a", PICTURE)).replace(b'; filename="a"', b""), FORM, 400, "a field that is no file; give `tasks` and `top_k` in the query"),
        (form(("a", b"x" * (32 * 1024 * 1024 + 1))), FORM, 413, "larger than the limit of 33554432 bytes"),
        (form(*[("a", b"x" * (22 * 1024 * 1024))] * 3), FORM, 413, "larger than the limit of 67108864 bytes"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:30],
)  # fmt: skip
def test_forms_that_are_refused(server: BackgroundServer, body: bytes, content_type: str, status: int, words: str) -> None:
    found, answer = post(server, body, Content_Type=content_type)
    assert (found, list(answer)) == (status, ["error"])
    assert words in answer["error"]


def declaring(width: int, height: int) -> bytes:
    """A BMP file that claims to be larger than it is."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    data[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(data)


def test_pixels_are_limited_for_each_file_and_together_before_decoding(server: BackgroundServer) -> None:
    status, answer = post(server, form(("a", PICTURE), ("bomb", declaring(60_000, 60_000))))
    assert (status, "50000000 pixels; send a smaller one" in answer["error"]) == (400, True)
    many = [("bomb", declaring(7_000, 7_000))] * 3  # each is allowed; none could be decoded, so that none was tried
    status, answer = post(server, form(*many))
    assert (status, "100000000 pixels together; send fewer at once" in answer["error"]) == (400, True)


@pytest.mark.parametrize(("size", "word"), [((800_000, 1), "6400000 x 8"), ((1, 50_000_000), "8 x 400000000")])
def test_pixels_are_limited_when_they_are_resized_too(server: BackgroundServer, size: tuple[int, int], word: str) -> None:
    # The networks take 8 x 8 pixels, to which the shorter side is resized before the longer one is cropped.
    status, answer = post(server, declaring(*size), Content_Type="image/bmp")
    assert status == 400
    assert f"would be resized to {word}, more than the limit of 50000000 pixels; crop it first" in answer["error"]
    status, answer = post(server, form(("a", PICTURE), ("long", declaring(*size))))
    assert (status, answer["error"].startswith("The image in file 2 ('long') has ")) == (400, True)


def test_pixels_are_limited_together_when_they_are_resized_too(server: BackgroundServer) -> None:
    status, answer = post(server, form(*[("long", declaring(600_000, 1))] * 3))
    assert (status, "Resized for each way in which the tasks take images" in answer["error"]) == (400, True)


def test_tasks_are_checked_before_images_are_read(server: BackgroundServer) -> None:
    for path in ("/predict?tasks=probe,cats", "/predict/cats"):
        for body, content_type in ((b"no image", "image/png"), (b"no form", FORM)):
            status, answer = post(server, body, path, Content_Type=content_type)
            assert (status, answer["error"].startswith("Unknown task 'cats'")) == (400, True)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/predict?task=probe", "'task'; known are: tasks, top_k, vectors, show, timeout, priority, partial_results."),
        ("/predict?top_k=1&Tasks=probe", "'Tasks'; known are: tasks, top_k, vectors, show, timeout, priority, partial_results."),
        ("/predict/probe?tasks=late", "'tasks'; known are: top_k, vectors, show, timeout, priority."),
    ],
)
def test_a_parameter_that_is_none_is_refused(server: BackgroundServer, path: str, words: str) -> None:
    assert post(server, PICTURE, path, Content_Type="image/png") == (400, {"error": f"Unknown query parameter {words}"})


names = st.text(st.characters(codec="utf-8", exclude_categories=("C",), exclude_characters='"\\'), max_size=5)


@settings(max_examples=50)
@given(st.lists(st.tuples(names, st.binary(max_size=50)), min_size=1, max_size=4))
def test_whatever_files_a_form_holds_come_back(files: list[tuple[str, bytes]]) -> None:
    if not any(BOUNDARY.encode() in data for _, data in files):
        assert read_files(form(*files), FORM, 4, 50) == [File(name, data) for name, data in files]
    if any(len(data) > 20 for _, data in files):
        with pytest.raises(BodyTooLarge):
            read_files(form(*files), FORM, 4, 20)


@settings(max_examples=50)
@given(st.binary(max_size=30), st.integers(0, 400), st.integers(0, 30))
def test_damaged_forms_are_read_or_refused_and_never_crash(noise: bytes, place: int, cut: int) -> None:
    whole = form(("a", b"123"), ("b", b"456"))
    with suppress(InvalidRequest):
        assert read_files(whole[:place] + noise + whole[place + cut :], FORM, 4, 400)


def test_scores_that_are_not_finite_are_null(repository: Repository) -> None:
    engine = InMemoryEngine({**LAYERS, "branch-late": lambda rows: np.array([[np.nan, 1, np.inf, 2]], np.float32)})
    with BackgroundServer(repository, engine, http_port=0, grpc_port=0) as server:
        status, answer = post(server, PICTURE, "/predict/late", Content_Type="image/png")
    assert (status, {item["score"] for item in answer["tasks"]["late"]["labels"]}) == (200, {None})
