"""Models that espalier did not export, beside those that it did: served under their own names over both protocols, as on Triton."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
from tritonclient.utils import InferenceServerException

from contract.repository import ALL_TASKS
from serving.server import BackgroundServer
from tests.serving.engines.onnxruntime.plain_folder import (
    SERVED,
    UNSERVED,
    ask,
    floats,
    strings,
    write_folder,
)
from tests.serving.nets import LAYERS, TASK_NAMES, images, whole
from tests.serving.protocol.http.test_http import PICTURE, Http
from tests.serving.protocol.test_control import TOKEN, Controller

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

MODULES = [tritonclient.http, tritonclient.grpc]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("plain") / "repo")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[BackgroundServer]:
    with BackgroundServer(folder, http_port=0, grpc_port=0, threads=1, admin_token=TOKEN) as running:
        yield running


@pytest.fixture(params=MODULES, ids=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: BackgroundServer) -> Iterator[Controller]:
    made = Controller(request.param, server)
    yield made
    made.client.close()


@pytest.mark.parametrize("rows", [1, 5, 8])
def test_nvidias_examples(client: Controller, rows: int) -> None:
    numbers, ones = np.arange(16 * rows, dtype=np.int32).reshape(rows, 16), np.ones((rows, 16), np.int32)
    answer = ask(client, "simple", {"INPUT0": numbers, "INPUT1": ones})
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), numbers + 1)
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), numbers - 1)
    only = ask(client, "simple", {"INPUT1": ones, "INPUT0": numbers}, {"OUTPUT1": 0})
    np.testing.assert_array_equal(only.as_numpy("OUTPUT1"), numbers - 1)
    assert only.as_numpy("OUTPUT0") is None
    answer = ask(client, "simple_string", {"INPUT0": strings(numbers), "INPUT1": strings(ones)})
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT0"), strings(numbers + 1))
    np.testing.assert_array_equal(answer.as_numpy("OUTPUT1"), strings(numbers - 1))


def test_strings_keep_their_bytes(client: Controller) -> None:
    texts = np.array([[b"", b"a\0b", "Grüße ☃".encode()], [b"x" * 1000, b"b'1'", b"\n"]], object)
    np.testing.assert_array_equal(ask(client, "strings", {"x": texts}).as_numpy("y"), texts)


def test_models_without_rows(client: Controller) -> None:
    for size in (1, 4):
        a, b = floats(2, size), floats(size, 3)
        np.testing.assert_array_equal(ask(client, "matmul", {"a": a, "b": b}).as_numpy("c"), a @ b)
    np.testing.assert_array_equal(ask(client, "fixed", {"x": floats(1, 3)}).as_numpy("y"), floats(1, 3))
    classes = ask(client, "scalar", {"x": floats(1) + 7}, {"y": 1}).as_numpy("y")
    assert (classes.shape, classes[0]) == ((1,), b"7.000000:0")


def test_shapes_that_differ_from_the_files(client: Controller) -> None:
    answer = ask(client, "ranking", {"x": floats(2, 3)}, {"best": 0, "scores": 2})
    np.testing.assert_array_equal(answer.as_numpy("best"), [[2], [2]])
    assert answer.as_numpy("scores").tolist() == [
        [b"2.000000:2:blue", b"1.000000:1:green"],
        [b"5.000000:2:blue", b"4.000000:1:green"],
    ]
    np.testing.assert_array_equal(ask(client, "reshaped", {"x": floats(3, 4)}).as_numpy("y"), floats(3, 4))


def test_weights_beside_the_model(client: Controller) -> None:
    np.testing.assert_array_equal(ask(client, "external", {"x": floats(2, 3)}).as_numpy("y"), floats(2, 3) * floats(3))


def test_the_version_that_is_asked_for(client: Controller) -> None:
    for version in ("", "3"):
        answer = ask(client, "versions", {"x": floats(1, 3)}, model_version=version)
        np.testing.assert_array_equal(answer.as_numpy("y"), 3 * floats(1, 3))
    for other in ("1", "10"):
        with pytest.raises(InferenceServerException, match="Unknown version"):
            ask(client, "versions", {"x": floats(1, 3)}, model_version=other)


def test_what_they_say_of_themselves(client: Controller) -> None:
    def described(model: str) -> Any:
        found = client.ask("get_model_metadata", model)
        assert (found["name"], found["platform"]) == (model, "onnxruntime_onnx")
        tensors = (*found["inputs"], *found["outputs"])
        return found["versions"], [(tensor["name"], tensor["datatype"], *map(int, tensor["shape"])) for tensor in tensors]

    assert described("simple") == (["1"], [(f"{side}{n}", "INT32", -1, 16) for side in ("INPUT", "OUTPUT") for n in (0, 1)])
    assert described("matmul") == (["1"], [("a", "FP32", 2, -1), ("b", "FP32", -1, 3), ("c", "FP32", 2, 3)])
    assert described("ranking") == (["1"], [("x", "FP32", -1, 3), ("scores", "FP32", -1, 3), ("best", "INT64", -1, 1)])
    assert described("scalar") == (["1"], [("x", "FP32", 1), ("y", "FP32", 1)])
    assert described("versions")[0] == ["3"]

    def config(model: str) -> Any:
        found = client.ask("get_model_config", model)
        return found if client.is_http else found["config"]

    bare = config("bare")
    assert (bare["name"], bare["platform"], bare["backend"], bare["max_batch_size"]) == (
        "bare",
        "onnxruntime_onnx",
        "onnxruntime",
        4,
    )
    assert (bare["default_model_filename"], "dynamic_batching" in bare) == ("model.onnx", True)
    assert config("named")["default_model_filename"] == "net.onnx"
    partial = config("partial")
    assert (partial["max_batch_size"], partial["input"][0]["data_type"], "dynamic_batching" in partial) == (2, "TYPE_FP32", False)
    assert [int(size) for size in partial["input"][0]["dims"]] == [3]
    assert "espalier_kind" not in json.dumps(config("simple"))


def test_the_index_names_what_cannot_be_served_and_why(client: Controller, folder: Path) -> None:
    found = client.ask("get_model_repository_index")
    entries = {entry["name"]: entry for entry in (found if client.is_http else found["models"])}
    assert entries.keys() == {*SERVED, *UNSERVED, *TASK_NAMES, *LAYERS, ALL_TASKS}
    for name, entry in entries.items():
        assert entry["state"] == ("UNAVAILABLE" if name in UNSERVED else "READY")
        assert UNSERVED[name][2] in entry["reason"] if name in UNSERVED else not entry.get("reason")
        assert client.is_ready(name) == (name not in UNSERVED)
    assert str(folder) not in json.dumps(entries)


def test_the_index_of_those_that_are_ready(server: BackgroundServer) -> None:
    http = Http(server)
    every = {*SERVED, *TASK_NAMES, *LAYERS, ALL_TASKS}
    for body, names in (
        ({"ready": True}, every),
        ({"ready": False}, every | UNSERVED.keys()),
        ({"ready": None}, every | UNSERVED.keys()),
    ):
        assert {entry["name"] for entry in http("POST", "/v2/repository/index", json.dumps(body).encode())[1]} == names
    http.connection.close()


def test_statistics_are_of_the_model(client: Controller) -> None:
    def counts() -> tuple[int, int]:
        (found,) = client.ask("get_inference_statistics", "reshaped")["model_stats"]
        return int(found.get("inference_count", 0)), int(found.get("execution_count", 0))

    before = counts()
    ask(client, "reshaped", {"x": floats(3, 4)})
    assert counts() == (before[0] + 3, before[1] + 1)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "too many rows": ("simple", dict.fromkeys(("INPUT0", "INPUT1"), np.zeros((9, 16), np.int32)), "has 9 rows, but the max_batch_size of"),
    "no batch axis": ("simple", dict.fromkeys(("INPUT0", "INPUT1"), np.zeros(16, np.int32)), "has shape [16], but"),
    "a batch axis": ("matmul", {"a": floats(1, 2, 4), "b": floats(4, 3)}, "takes input 'a' (FP32, shape [2, -1])"),
    "a wrong size": ("matmul", {"a": floats(3, 4), "b": floats(4, 3)}, "The input 'a' has shape [3, 4]"),
    "another type": ("bare", {"x": np.zeros((1, 3), np.int32)}, "is INT32, but model 'bare' takes input 'x' (FP32, shape [-1, 3], first"),
    "an input too few": ("simple", {"INPUT0": np.zeros((1, 16), np.int32)}, "needs input 'INPUT1'"),
    "no text": ("strings", {"x": np.array([[b"\xff"]], object)}, "Input 'x' has strings that are not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_answered_is_refused(client: Controller, what: str) -> None:
    model, inputs, words = REFUSED[what]
    with pytest.raises(InferenceServerException) as caught:
        ask(client, model, inputs)
    assert (caught.value.status(), words in str(caught.value.message())) == (client.status("400", "INVALID_ARGUMENT"), True)


def test_a_run_that_fails_is_the_models_own_failure(client: Controller) -> None:
    words = np.full((1, 16), b"no number", object)
    with pytest.raises(InferenceServerException) as caught:
        ask(client, "simple_string", {"INPUT0": words, "INPUT1": words})
    assert caught.value.status() == client.status("500", "INTERNAL")
    assert "simple_string" in str(caught.value.message())
    test_nvidias_examples(client, 1)


def test_requests_of_many_shapes_at_once(server: BackgroundServer) -> None:
    """Those of a model without rows, or with open sizes, are never put together wrongly."""

    async def ask_all() -> None:
        async with tritonclient.grpc.aio.InferenceServerClient(server.grpc_address) as client:

            async def one(size: int) -> None:
                a, b = tritonclient.grpc.InferInput("a", [2, size], "FP32"), tritonclient.grpc.InferInput("b", [size, 3], "FP32")
                a.set_data_from_numpy(floats(2, size))
                b.set_data_from_numpy(floats(size, 3))
                answer = await client.infer("matmul", [a, b])
                np.testing.assert_array_equal(answer.as_numpy("c"), floats(2, size) @ floats(size, 3))
                text = strings(floats(1, size))
                x = tritonclient.grpc.InferInput("x", [1, size], "BYTES")
                x.set_data_from_numpy(text)
                np.testing.assert_array_equal((await client.infer("strings", [x])).as_numpy("y"), text)

            await asyncio.gather(*(one(1 + number % 5) for number in range(40)))

    asyncio.run(ask_all())


def test_ours_are_as_they_were(client: Controller, server: BackgroundServer) -> None:
    found = client.ask("get_model_metadata", ALL_TASKS)
    assert {output["name"] for output in found["outputs"]} == {*TASK_NAMES}
    answer = client.infer(ALL_TASKS, images(2), TASK_NAMES)
    for task in TASK_NAMES:
        np.testing.assert_allclose(answer.as_numpy(task), whole(task, images(2)), rtol=1e-4, atol=1e-5)
    http = Http(server)
    assert http("POST", "/predict", PICTURE)[1]["tasks"].keys() == {*TASK_NAMES}
    status, body = http("POST", "/predict/simple", PICTURE)
    assert (status, body["error"]) == (400, "Task 'simple' takes no images; send it tensors through v2/models/simple/infer.")
    described = {task["name"]: task for task in http("GET", "/tasks")[1]["tasks"]}
    assert described.keys() == {*TASK_NAMES, *SERVED}
    assert (described["simple"]["macs"], described["late"]["macs"] > 0) == (None, True)
    assert http("GET", "/openapi.json")[0] == 200
    http.connection.close()
    with urllib.request.urlopen(f"http://{server.http_address}/metrics") as metrics:
        found = re.search(r'nv_inference_count\{model="simple",version="1"\} (\d+)', metrics.read().decode())
    assert found is not None
    assert int(found[1]) > 0
