"""Models that espalier did not export, beside those that it did: served under their own names over both protocols, as on Triton."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import shutil
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException

from contract.errors import RepositoryError
from contract.repository import ALL_TASKS, read_repository
from contract.repository.read import RepositoryReader
from exporter.gc import collect_garbage
from exporter.remove import remove_tasks
from serving.engines.onnxruntime.plain import read_plain, refuse_plain
from serving.server import BackgroundServer, Server
from tests.serving.nets import LAYERS, TASK_NAMES, images, whole, write_repository
from tests.serving.plain_models import (
    add_sub,
    add_sub_of_strings,
    config_of,
    identity,
    matmul,
    onnx_model,
    ranking,
    scaled,
    write_model,
)
from tests.serving.protocol.http.test_http import PICTURE, Http
from tests.serving.protocol.test_control import TOKEN, Controller

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

MODULES = [tritonclient.http, tritonclient.grpc]
ENSEMBLE = 'platform: "ensemble" max_batch_size: 1 ensemble_scheduling { step [ { model_name: "simple" model_version: -1 } ] }'
UNBATCHED = """backend: "onnxruntime"
input [ { name: "a" data_type: TYPE_FP32 dims: [ 2, -1 ] }, { name: "b" data_type: TYPE_FP32 dims: [ -1, 3 ] } ]
output [ { name: "c" data_type: TYPE_FP32 dims: [ 2, 3 ] } ]"""
RANKED = 'output [ { name: "scores" label_filename: "colours.txt" }, { name: "best" } ]'
PARTIAL = """backend: "onnxruntime" max_batch_size: 2 instance_group [ { count: 2 } ]
input [ { name: "x" } ] output [ { name: "y" dims: [ 3 ] } ]"""
RESHAPED = """max_batch_size: 4 input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } } ]"""
SERVED = (
    "bare",
    "external",
    "fixed",
    "matmul",
    "named",
    "partial",
    "ranking",
    "reshaped",
    "scalar",
    "simple",
    "simple_string",
    "strings",
    "versions",
)


def write_served(root: Path) -> None:
    write_model(root / "simple", add_sub(), config_of("INT32"))
    write_model(root / "simple_string", add_sub_of_strings(), config_of("STRING"))
    write_model(root / "strings", identity(("N", "k"), TensorProto.STRING))
    write_model(root / "matmul", matmul(), UNBATCHED)
    write_model(root / "fixed", identity((1, 3)))
    write_model(root / "scalar", identity(()))
    write_model(root / "bare", identity())
    write_model(root / "ranking", ranking(), RANKED)
    (root / "ranking/colours.txt").write_text("red\ngreen\nblue\n")
    write_model(root / "partial", identity(), PARTIAL)
    write_model(root / "reshaped", identity(("N", 2, 2)), RESHAPED)
    write_model(root / "external", scaled("w.bin"), file="1/model.onnx/model.onnx")
    (root / "external/1/model.onnx/w.bin").write_bytes(floats(3).tobytes())
    write_model(root / "named", identity(), 'default_model_filename: "net.onnx" backend: "onnxruntime"', "1/net.onnx")
    for version in (1, 3, 10):
        write_model(
            root / "versions",
            identity(factor=version),
            "version_policy { specific { versions: [ 3 ] } }",
            f"{version}/model.onnx",
        )


def sequence_model() -> onnx.ModelProto:
    model = onnx_model([helper.make_node("SequenceConstruct", ["x"], ["y"])], {"x": ("N", 3)}, {"y": ("N", 3)})
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ("N", 3)))
    return model


# What cannot be served: how it is written, and what its reason says.
UNSERVED: dict[str, tuple[Any, str | None, str]] = {
    "a_python": (None, 'backend: "python"', "It is for 'python'; beside what espalier exports, only ONNX"),
    "an_ensemble": (None, ENSEMBLE, "It is an ensemble that espalier did not write"),
    "a_torch": (None, None, "It has no model.onnx; beside what espalier exports, only ONNX"),
    "damaged": (b"no model", None, "ONNX Runtime does not open its 1/model.onnx ("),
    "garbled": (identity(), "max_batch_size {", "garbled/config.pbtxt is not a Triton model configuration"),
    "misnamed": (identity(), 'name: "another"', "Its config.pbtxt is named 'another'; it must be named like its folder."),
    "of_a_future": (identity(), 'parameters { key: "espalier_kind" value { string_value: "tower" } }', "It is a 'tower' of another"),
    "other_type": (add_sub(), config_of("FP32"), "says that 'INPUT0' is FP32; in its file it is INT32"),
    "other_shape": (add_sub(), config_of("INT32", dims=8), "'INPUT0' has shape [-1, 8], the rows first; in its file it has [-1, 16]"),
    "other_names": (identity(), config_of("FP32"), "names the inputs 'INPUT0' and 'INPUT1'; those of its file are 'x'."),
    "no_rows": (add_sub(shape=(1, 16)), config_of("INT32"), "Its max_batch_size is 8, but in its file 'INPUT0' has shape [1, 16]"),
    "sequences": (add_sub(), config_of("INT32", more="sequence_batching { }"), "asks for sequence_batching, which is not offered here"),
    "gives_sequences": (sequence_model(), None, "'y' is a seq(tensor(float)) in its file, which is not served here"),
    "two_versions": (identity(), "version_policy { all { } }", "asks for versions 1 and 2 at once, and one is served"),
    "no_version": (identity(), "version_policy { specific { versions: 7 } }", "Its version_policy names version 7, which is not there."),
    "no_labels": (identity(), 'output [ { name: "y" label_filename: "../x" } ]', "Its labels file '../x' is not beside its config.pbtxt."),
    "outside": (scaled("../../secret.bin"), None, "ONNX Runtime does not open its 1/model.onnx ("),
    "no_file": (identity(), 'default_model_filename: "net.onnx"', "It has no 1/net.onnx."),
}  # fmt: skip


def write_unserved(root: Path) -> None:
    for name, (model, config, _) in UNSERVED.items():
        write_model(root / name, b"" if model is None else model, config, "1/model.pt" if model is None else "1/model.onnx")
    write_model(root / "two_versions", identity(), None, "2/model.onnx")
    write_model(root / ".hidden", identity())
    (root / "notes").mkdir()
    (root / "secret.bin").write_bytes(b"not theirs!!")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ours, other people's, and what cannot be served, in one repository."""
    folder = tmp_path_factory.mktemp("plain") / "repo"
    write_repository(folder)
    write_served(folder)
    write_unserved(folder)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[BackgroundServer]:
    with BackgroundServer(folder, http_port=0, grpc_port=0, threads=1, admin_token=TOKEN) as running:
        yield running


@pytest.fixture(params=MODULES, ids=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: BackgroundServer) -> Iterator[Controller]:
    made = Controller(request.param, server)
    yield made
    made.client.close()


def ask(client: Controller, model: str, inputs: dict[str, Any], outputs: dict[str, int] | None = None, **options: Any) -> Any:
    """inputs: arrays by name. outputs: the classes wanted of each, 0: values."""
    tensors = []
    for name, array in inputs.items():
        dtype = {"i": "INT32", "f": "FP32", "O": "BYTES"}[array.dtype.kind]
        tensors.append(client.module.InferInput(name, list(array.shape), dtype))
        tensors[-1].set_data_from_numpy(array)
    wanted = [client.module.InferRequestedOutput(name, class_count=count) for name, count in (outputs or {}).items()]
    return client.client.infer(model, tensors, outputs=wanted or None, **options)


def floats(*shape: int) -> Any:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def strings(numbers: Any) -> Any:
    return np.array([str(number).encode() for number in numbers.ravel()], object).reshape(numbers.shape)


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


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Path, Controller]]:
    """A server on a plain repository that may be changed, and a client of it."""
    write_model(tmp_path / "repo/double", identity(factor=2))
    write_model(tmp_path / "repo/simple", add_sub(), config_of("INT32"))
    with BackgroundServer(tmp_path / "repo", http_port=0, grpc_port=0, threads=1, admin_token=TOKEN) as server:
        client = Controller(tritonclient.grpc, server)
        yield tmp_path / "repo", client
        client.client.close()


def test_they_come_and_go_like_tasks(own: tuple[Path, Controller]) -> None:
    repo, client = own

    def factor() -> float:
        return float(ask(client, "double", {"x": floats(1, 3) + 1}).as_numpy("y")[0, 0])

    assert (client.index(), factor()) == ({"double", "simple"}, 2)
    write_model(repo / "double", identity(factor=3))
    assert factor() == 2  # until it is told
    client.load("double")
    assert factor() == 3
    write_model(repo / "double", identity(factor=4), file="2/model.onnx")
    client.load("double")
    assert (factor(), client.ask("get_model_metadata", "double")["versions"]) == (4, ["2"])
    write_model(repo / "double", b"damaged", file="2/model.onnx")
    status, sentence = client.refusal("load", "double")
    assert (status, sentence.startswith("Model 'double' was not loaded, and nothing has changed: ONNX Runtime does not")) == (
        "StatusCode.INVALID_ARGUMENT",
        True,
    )
    assert (factor(), str(repo) in sentence) == (4, False)
    client.unload("double")
    assert client.index() == {"simple"}
    write_model(repo / "new", identity(factor=5))
    client.load("new")
    client.load(ALL_TASKS)
    assert client.index() == {"simple", "new"}
    assert client.refusal("load", "double")[0] == "StatusCode.INVALID_ARGUMENT"
    shutil.rmtree(repo / "double/2")
    client.load("double")
    assert (client.index(), factor()) == ({"simple", "new", "double"}, 3)


def test_the_log_names_what_is_not_served_or_not_heeded(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), BackgroundServer(folder, http_port=0, grpc_port=0, threads=1):
        pass
    said = [record.getMessage() for record in caplog.records if record.name == "serving.lifecycle"]
    for name, (_, _, words) in UNSERVED.items():
        assert sum(line.startswith(f"Model {name!r} is not served: ") and words in line for line in said) == 1
    assert "Model 'partial' is served, but not what its config.pbtxt says of instance_group." in said
    assert len(said) == len(UNSERVED) + 1


def test_a_repository_in_which_nothing_can_be_served(tmp_path: Path) -> None:
    write_unserved(tmp_path)
    with pytest.raises(RepositoryError, match=r"holds no model that can be served\. a_python: It is for 'python'"):
        asyncio.run(Server(tmp_path, http_port=0, grpc_port=0).start())


def test_where_tritons_compute_they_are_not_served(folder: Path) -> None:
    found = RepositoryReader(folder, refuse_plain).read()
    assert found.tasks.keys() == {*TASK_NAMES}
    assert found.unserved.keys() == {*SERVED, *UNSERVED}
    assert {reason for name, reason in found.unserved.items() if name in SERVED} == {
        "With Triton as the engine only what espalier has exported is served; ask Triton for it, or take the embedded engine."
    }


def test_one_that_is_larger_than_the_memory_is_not_served(folder: Path) -> None:
    found = RepositoryReader(folder, partial(read_plain, memory_limit_bytes=1000)).read()
    assert found.tasks.keys() == {*TASK_NAMES}
    assert all(found.unserved[name].endswith("more than the limit of 1000 bytes; raise the limit.") for name in SERVED)


def test_a_task_of_ours_whose_configuration_is_damaged_is_no_plain_model(tmp_path: Path) -> None:
    write_repository(tmp_path)
    reader = RepositoryReader(tmp_path, read_plain)
    reader.read()
    (tmp_path / "late/config.pbtxt").write_bytes(b"\xff\x00")
    with pytest.raises(RepositoryError, match=r"late/config\.pbtxt cannot be read"):
        reader.read()


def test_what_changes_a_repository_leaves_them_as_they_are(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    write_repository(repo)
    write_served(repo)
    write_model(repo / "misnamed", identity(), 'name: "another"')
    names = (*SERVED, "misnamed")

    def files() -> dict[str, bytes]:
        return {
            str(file.relative_to(repo)): file.read_bytes()
            for name in names
            for file in (repo / name).rglob("*")
            if file.is_file()
        }

    before = files()
    remove_tasks(repo, ["late"])
    collect_garbage(repo)
    assert (files(), read_repository(repo).tasks.keys()) == (before, {*TASK_NAMES} - {"late"})
    assert RepositoryReader(repo, read_plain).read().tasks.keys() == {*TASK_NAMES, *SERVED} - {"late"}
