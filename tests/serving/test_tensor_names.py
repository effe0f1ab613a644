"""A task goes by the names of its network's own file, too: a client of the original network works unchanged on the task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from contract.repository import read_repository
from exporter.deploy import deploy
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources
from exporter.sharing.choose import CutOptions
from exporter.sources.task_model import Sources, TaskModel
from serving.server import BackgroundServer
from tests.exporter.graphs import Net
from tests.exporter.mixed import FAMILY, LENGTH, image, rename, save_family

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced", "forked_preflight")]

ORIGINAL = {
    "kind": (["image"], ["logits"]),
    "risk": (["pixels", "age"], ["risk:0"]),
    "mood": (["input_ids", "attention_mask"], ["scores"]),
}
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def server(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    repo = tmp_path_factory.mktemp("served") / "repo"
    export_repository(open_sources(None, files), ExportOptions(repo, cuts=CutOptions("exact")))
    with BackgroundServer(repo, http_port=0, grpc_port=0, threads=1) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: BackgroundServer) -> Iterator[Any]:
    module = http_client if request.param == "http" else grpc_client
    with module.InferenceServerClient(server.http_address if request.param == "http" else server.grpc_address) as connected:
        yield module, connected


def metadata(client: Any, model: str, version: str = "") -> dict[str, Any]:
    module, connected = client
    return dict(connected.get_model_metadata(model, version, **({} if module is http_client else {"as_json": True})))


def names(told: dict[str, Any]) -> tuple[list[str], list[str]]:
    return [tensor["name"] for tensor in told["inputs"]], [tensor["name"] for tensor in told["outputs"]]


def some_rows(told: dict[str, Any]) -> Arrays:
    """Return inputs as a client makes them that knows the network by what the server says of it."""
    random = np.random.default_rng(5)
    shapes = {
        tensor["name"]: [2, *(size if size > 0 else LENGTH for size in map(int, tensor["shape"][1:]))]
        for tensor in told["inputs"]
    }
    dtypes = {tensor["name"]: triton_to_np_dtype(tensor["datatype"]) for tensor in told["inputs"]}
    return {name: random.integers(0, 2, shape).astype(dtypes[name]) for name, shape in shapes.items()}


def ask(client: Any, model: str, inputs: Arrays, outputs: list[str] | None = None, classes: int = 0) -> Arrays:
    module, connected = client
    tensors = []
    for name, array in inputs.items():
        dtype = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64"}[str(array.dtype)]
        tensors.append(module.InferInput(name, list(array.shape), dtype))
        tensors[-1].set_data_from_numpy(array)
    wanted = [module.InferRequestedOutput(name, class_count=classes) for name in outputs or []]
    result = connected.infer(model, tensors, outputs=wanted or None)
    response = result.get_response()
    there = response["outputs"] if isinstance(response, dict) else response.outputs
    return {name: result.as_numpy(name) for name in [one["name"] if isinstance(response, dict) else one.name for one in there]}


@pytest.mark.parametrize("task", ORIGINAL)
def test_a_client_of_the_network_works_on_the_task(client: Any, files: dict[str, Path], task: str) -> None:
    told = metadata(client, task)
    assert names(told) == ORIGINAL[task]
    inputs = some_rows(told)
    expected = ort.InferenceSession(files[task]).run(None, inputs)
    for outputs in (None, ORIGINAL[task][1]):
        found = ask(client, task, inputs, outputs)
        assert [*found] == ORIGINAL[task][1]
        np.testing.assert_allclose(found[ORIGINAL[task][1][0]], expected[0], atol=1e-5)


def test_the_names_of_the_repository_are_taken_as_ever(client: Any) -> None:
    inputs = some_rows(metadata(client, "kind"))
    ours = {"pixels": inputs["image"]}
    expected = ask(client, "kind", inputs)["logits"]
    assert {name: found.tolist() for name, found in ask(client, "kind", ours, ["kind"]).items()} == {"kind": expected.tolist()}
    assert {name: found.tolist() for name, found in ask(client, "kind", ours).items()} == {"kind": expected.tolist()}
    assert [*ask(client, "kind", inputs, ["kind"])] == ["kind"]
    assert [*ask(client, "kind", ours, ["logits"])] == ["logits"]
    assert names(metadata(client, "all_tasks"))[1] == sorted(FAMILY)
    with pytest.raises(InferenceServerException, match="has no input 'image'"):
        ask(client, "all_tasks", inputs, ["kind"])


def test_classes_are_asked_for_by_either_name(client: Any) -> None:
    inputs = some_rows(metadata(client, "kind"))
    assert (
        ask(client, "kind", inputs, ["logits"], 2)["logits"].tolist() == ask(client, "kind", inputs, ["kind"], 2)["kind"].tolist()
    )


def test_one_tensor_under_two_names_is_refused(client: Any) -> None:
    inputs = some_rows(metadata(client, "kind"))
    with pytest.raises(InferenceServerException, match="Input 'pixels' is what 'image' is, too; send it once, under one name"):
        ask(client, "kind", {**inputs, "pixels": inputs["image"]})
    with pytest.raises(InferenceServerException, match="is requested twice; name each output once"):
        ask(client, "kind", inputs, ["logits", "kind"])


def test_refusals_speak_of_the_names_that_metadata_has(client: Any) -> None:
    with pytest.raises(InferenceServerException, match=r"needs input 'image' \(UINT8"):
        ask(client, "kind", {})
    with pytest.raises(InferenceServerException, match=r"no input 'picture'; it takes input 'image' \(UINT8"):
        ask(client, "kind", {"picture": np.zeros((1, 2), np.float32)})
    with pytest.raises(InferenceServerException, match=r"no output 'classes'; it gives 'logits'"):
        ask(client, "kind", some_rows(metadata(client, "kind")), ["classes"])


def test_the_configuration_that_is_served_has_the_names_of_metadata(server: BackgroundServer) -> None:
    with http_client.InferenceServerClient(server.http_address) as client:
        for task, (inputs, outputs) in ORIGINAL.items():
            config = client.get_model_config(task)
            assert [tensor["name"] for tensor in config["input"]] == inputs
            assert [tensor["name"] for tensor in config["output"]] == outputs
            steps = config["ensemble_scheduling"]["step"]
            assert set(inputs) <= {name for step in steps for name in step["input_map"].values()}
            assert set(outputs) <= {name for step in steps for name in step["output_map"].values()}


def one_task(folder: Path, head: int, **called: str) -> Sources:
    model = image(head)
    rename(model, called)
    folder.mkdir()
    onnx.save(model, folder / "kind.onnx")
    return open_sources(None, {"kind": folder / "kind.onnx"})


def test_what_clients_were_told_stays_when_a_task_is_replaced(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export_repository(one_task(tmp_path / "1", 1, image="x", logits="y"), ExportOptions(repo))
    assert read_repository(repo).tasks["kind"].names == {"image": ("x",), "kind": ("y",)}
    deploy(repo, one_task(tmp_path / "2", 2, image="picture", logits="y"))
    assert read_repository(repo).tasks["kind"].names == {"image": ("x", "picture"), "kind": ("y",)}
    deploy(repo, Sources({"kind": lambda: TaskModel(Net(head=3).model())}))
    deploy(repo, one_task(tmp_path / "4", 4, logits="z"), canary=0.5)
    with (
        BackgroundServer(repo, http_port=0, grpc_port=0, threads=1) as running,
        http_client.InferenceServerClient(running.http_address) as connected,
    ):
        client = (http_client, connected)
        told = metadata(client, "kind")
        assert names(told) == names(metadata(client, "kind", "4")) == (["x"], ["y"])
        rows = some_rows(told)["x"]
        for name in ("x", "picture", "image"):
            for _ in range(8):  # by either version
                assert [*ask(client, "kind", {name: rows}, ["y"])] == ["y"]


def test_a_task_that_had_no_other_names_keeps_saying_its_own(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export_repository(Sources({"kind": lambda: TaskModel(Net(head=3).model())}), ExportOptions(repo))
    assert read_repository(repo).tasks["kind"].names == {}
    deploy(repo, one_task(tmp_path / "1", 1, image="x", logits="y"))
    assert read_repository(repo).tasks["kind"].names == {"image": ("image", "x"), "kind": ("kind", "y")}
