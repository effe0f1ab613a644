"""Each kind in each way of asking, with the embedded engine and with Triton: the same answers, and the right ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import espalier
from contract.repository import Repository
from serving.engines.triton.engine import TritonEngine, TritonEngineOptions
from serving.errors import RequestRefused
from serving.local_triton.environment import set_up
from serving.local_triton.errors import TritonUnavailable
from serving.local_triton.local import TritonAddresses, local_triton
from serving.server import BackgroundServer
from tests.espalier.test_cli import espalier as command
from tests.serving.local_triton.tritons import connect
from tests.serving.protocol.http.test_http import Http
from tests.serving.protocol.kinds_family import KINDS, RED, TEXT, TEXTS, rows_of, write_kinds, write_picture

READ = [task for task, kind in KINDS.items() if kind != "tensor"]
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Place:
    """A repository of all kinds, a picture, and a server. plain: what the repository answers in this process, by task."""

    repository: Repository
    picture: Path
    server: BackgroundServer
    plain: Mapping[str, Any]

    @property
    def url(self) -> str:
        return f"http://{self.server.http_address}"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    return write_kinds(folder), write_picture(folder)


@pytest.fixture(scope="module")
def plain(written: tuple[Repository, Path]) -> dict[str, Any]:
    """What a repository that is opened answers."""
    repository, picture = written
    with espalier.open(repository.path) as opened:
        found = {**opened.predict(picture).tasks, **opened.predict_texts([TEXT]).tasks}
    return {task: json.loads(answers[0].model_dump_json()) for task, answers in found.items()}


@pytest.fixture(scope="module", params=["embedded", "triton"])
def place(request: pytest.FixtureRequest, written: tuple[Repository, Path], plain: dict[str, Any]) -> Iterator[Place]:
    repository, picture = written
    if request.param == "embedded":
        with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1) as server:
            yield Place(repository, picture, server, plain)
        return
    try:
        set_up()
    except TritonUnavailable as error:
        pytest.skip(str(error))
    with (
        local_triton(repository.path) as triton,
        BackgroundServer(
            repository.path,
            http_port=0,
            grpc_port=0,
            make_engine=lambda served: TritonEngine(served, triton.grpc_url, TritonEngineOptions(statistics_s=3600)),
        ) as server,
    ):
        yield Place(repository, picture, server, plain)


def over_http(place: Place, task: str) -> Any:
    ask = Http(place.server)
    text = {"content_type": "application/json"} if task in TEXTS else {}
    status, body = ask("POST", f"/predict/{task}", json.dumps({"text": TEXT}) if text else place.picture.read_bytes(), **text)
    ask.connection.close()
    assert status == 200, body
    return body["tasks"][task]


def by_command(place: Place, task: str) -> Any:
    about = ["--text", TEXT] if task in TEXTS else [place.picture]
    shown = command("infer", *about, "--task", task, "--url", place.url)
    assert shown.returncode == 0, shown.stderr
    assert task in shown.stdout
    run = command("infer", *about, "--task", task, "--url", place.url, "--json")
    body = json.loads(run.stdout)
    return (body["texts"][0] if task in TEXTS else body)["tasks"][task]


def by_client(place: Place, task: str) -> Any:
    client = espalier.Client(place.url)
    body = client.predict(text=TEXT, tasks=[task]) if task in TEXTS else client.predict(place.picture, [task])
    return body["tasks"][task]


def by_async_client(place: Place, task: str) -> Any:
    async def ask() -> Any:
        async with espalier.AsyncClient(place.url) as client:
            if task in TEXTS:
                return (await client.predict(text=[TEXT], tasks=[task]))["texts"]
            return await client.predict_many([place.picture], [task])

    return asyncio.run(ask())[0]["tasks"][task]


WAYS: Mapping[str, Callable[[Place, str], Any]] = {
    "http": over_http,
    "command": by_command,
    "client": by_client,
    "async client": by_async_client,
}


def close(found: Any, expected: Any) -> None:
    """Compare answers: numbers to rounding, all else to the letter."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            close(found[name], value)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close(one, other)
    else:
        assert found == (pytest.approx(expected, abs=1e-4, rel=1e-4) if isinstance(expected, float) else expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("task", READ)
def test_every_way_gives_the_same_answer(place: Place, task: str, way: str) -> None:
    found = WAYS[way](place, task)
    assert found["kind"] == KINDS[task]
    close(found, place.plain[task])


def test_the_answers_are_right(plain: Mapping[str, Any]) -> None:
    assert plain.keys() == {*READ}
    assert plain["classes"]["labels"][0]["label"] == "0"
    assert [label["label"] for label in plain["labels"]["labels"]] == ["0"]
    assert [value["value"] > 0 for value in plain["values"]["values"]] == [True, False, False]
    assert plain["embedding"]["vector"] == pytest.approx([1, 0, 0])
    assert {area["label"] for area in plain["mask"]["areas"]} == {"0", "1"}
    for task in ("yolo", "detr", "torchvision"):
        (box,) = plain[task]["boxes"]
        np.testing.assert_allclose(box["box"], RED, atol=1.5)
    assert [(span["label"], span["text"]) for span in plain["tokens"]["spans"]] == [("animal", "cat"), ("deed", "ran far")]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_over_v2_every_kind_gives_its_tensors(place: Place, protocol: str) -> None:
    server = place.server
    client = connect(protocol, TritonAddresses(server.http_address, server.grpc_address, ""))
    with espalier.open(place.repository.path) as opened:
        for task in KINDS:
            inputs = rows_of(place.repository, task, place.picture)
            expected, found = opened.infer(task, inputs), client.infer(task, inputs)
            assert found.keys() == expected.keys()
            for name, values in expected.items():
                np.testing.assert_allclose(found[name], values, atol=1e-4)
    client.close()


def test_what_is_for_programs_is_refused_in_each_way(place: Place) -> None:
    words = "Task 'tensor' is of the kind 'tensor', which people do not read; ask for its values through v2/models/tensor/infer"
    ask = Http(place.server)
    status, body = ask("POST", "/predict/tensor", place.picture.read_bytes())
    ask.connection.close()
    run = command("infer", place.picture, "--task", "tensor", "--url", place.url)
    assert (status, words in body["error"], run.returncode, words in run.stderr) == (400, True, 2, True), (body, run.stderr)
    with pytest.raises(RequestRefused, match="is of the kind 'tensor'"):
        espalier.Client(place.url).predict(place.picture, ["tensor"])
