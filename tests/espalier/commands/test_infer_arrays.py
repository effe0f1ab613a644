"""`espalier infer` and the clients, about arrays of any length."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import espalier
from contract.errors import InvalidRequest
from serving.errors import RequestRefused, ServerUnreachable
from serving.server import BackgroundServer
from tests.espalier.test_cli import espalier as command
from tests.serving.free_nets import IDS, LONGEST, MASK, TEXT, text, whole, write_free


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    repository = write_free(tmp_path_factory.mktemp("texts") / "repo")
    with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1) as server:
        yield f"http://{server.http_address}"


def test_clients_ask_about_arrays_of_any_length(url: str) -> None:
    for length in (1, 7, LONGEST):
        inputs = text(2, length, length)
        answers = espalier.Client(url).infer("all_tasks", inputs)
        assert set(answers) == {*TEXT}
        for task in TEXT:
            np.testing.assert_allclose(answers[task], whole(task, inputs), atol=1e-5)
        tag = asyncio.run(espalier.AsyncClient(url).infer("all_tasks", inputs, ["tag"]))
        assert set(tag) == {"tag"}
        np.testing.assert_array_equal(tag["tag"], answers["tag"])


def test_what_is_refused_is_the_servers_sentence(url: str) -> None:
    with pytest.raises(RequestRefused, match=f"has length 65; model 'tag' takes 1 to {LONGEST}"):
        espalier.Client(url).infer("tag", text(1, 65))
    with pytest.raises(RequestRefused, match="complex128"):
        espalier.Client(url).infer("tag", {**text(1, 3), MASK.name: np.zeros((1, 3), np.complex128)})
    with pytest.raises(ServerUnreachable):
        espalier.Client("http://127.0.0.1:9").infer("tag", text(1, 3))
    with pytest.raises(InvalidRequest):
        espalier.Client("ftp://127.0.0.1")


def test_arrays_are_asked_about_on_the_command_line(url: str, tmp_path: Path) -> None:
    inputs = text(2, 5)
    for name, values in inputs.items():
        np.save(tmp_path / f"{name}.npy", values)
    arrays = [part for name in inputs for part in ("--array", f"{name}={tmp_path / name}.npy")]
    run = command("infer", *arrays, "--task", "tag", "--url", url, "--json")
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert answer["tag"]["shape"] == [2, 5, 4]
    np.testing.assert_allclose(answer["tag"]["values"], whole("tag", inputs), atol=1e-5)
    run = command("infer", *arrays, "--task", "tag", "--task", "topic", "--url", url)
    assert ["2 x 5 x 4" in run.stdout, "2 x 3" in run.stdout, "mean" in run.stdout] == [True, True, False]


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("no array")
    np.savez(tmp_path / "several.npz", a=np.zeros(2))
    for setting, words in {
        "ids": "is not NAME=FILE",
        f"{IDS.name}={tmp_path}/none.npy": "is no array that numpy can read",
        f"{IDS.name}={tmp_path}/text.npy": "is no array that numpy can read",
        f"{IDS.name}={tmp_path}/several.npz": "holds several arrays",
    }.items():
        run = command("infer", "--array", setting)
        assert run.returncode == 2
        assert words.replace(" ", "") in "".join(run.stderr.replace("│", "").split())
    run = command("infer", "photo.jpg", "--array", "x=y")
    assert (run.returncode, "ask about arrays, an image or texts" in " ".join(run.stderr.split())) == (2, True)
    for option, value in (("--top-k", "2"), ("--vectors", "base64"), ("--show", "logits"), ("--truncate", "")):
        run = command("infer", "--array", "x=y.npy", *filter(None, (option, value)))
        assert (run.returncode, option in run.stderr, "is of images and texts" in run.stderr) == (2, True, True), run.stderr
