"""Tasks that take different inputs, served together: a request brings what its tasks need."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import onnxruntime as ort
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from PIL import Image
from tritonclient.utils import InferenceServerException

from contract.preprocessing import Preprocessing
from contract.repository import read_repository
from exporter.add import AddOptions, add_tasks
from exporter.export import ExportOptions, export_repository
from exporter.open_models import open_sources
from exporter.remove import remove_tasks
from exporter.sharing.choose import CutOptions
from exporter.sources.task_model import LoadTaskModel, Sources
from serving.server import BackgroundServer
from tests.exporter.graphs import SIZE
from tests.exporter.mixed import LENGTH, VOCABULARY, save_family

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced", "forked_preflight")]
LATER = "breed"  # comes while the server runs

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("networks"))


def of_images(load: LoadTaskModel) -> LoadTaskModel:
    return lambda: replace(load(), preprocessing=Preprocessing(SIZE, SIZE))


def opened(files: dict[str, Path]) -> Sources:
    sources = open_sources(None, files)
    return replace(
        sources, tasks={name: of_images(load) if name in ("kind", "breed") else load for name, load in sources.tasks.items()}
    )


@pytest.fixture(scope="module")
def server(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    repo = tmp_path_factory.mktemp("served") / "repo"
    first = {name: file for name, file in files.items() if name != LATER}
    export_repository(opened(first), ExportOptions(repo, cuts=CutOptions("exact")))
    with BackgroundServer(repo, http_port=0, grpc_port=0, threads=1) as running:
        yield running


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: BackgroundServer) -> Iterator[Any]:
    module = http_client if request.param == "http" else grpc_client
    address = server.http_address if request.param == "http" else server.grpc_address
    with module.InferenceServerClient(address) as connected:
        yield module, connected


def ask(client: Any, model: str, inputs: Arrays, outputs: list[str] | None = None, **parameters: Any) -> Any:
    module, connected = client
    tensors = []
    for name, array in inputs.items():
        dtype = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64"}[str(array.dtype)]
        tensors.append(module.InferInput(name, list(array.shape), dtype))
        tensors[-1].set_data_from_numpy(array)
    wanted = [module.InferRequestedOutput(name) for name in outputs or []]
    return connected.infer(model, tensors, outputs=wanted or None, parameters=parameters or None)


def rows(count: int = 2) -> Arrays:
    random = np.random.default_rng(count)
    return {
        "pixels": random.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8),
        "age": random.standard_normal((count, 2)).astype(np.float32),
        "input_ids": random.integers(0, VOCABULARY, (count, LENGTH)),
        "attention_mask": random.integers(0, 2, (count, LENGTH)),
        "token_type_ids": random.integers(0, 2, (count, LENGTH)),
    }


TAKES = {
    "kind": ["pixels"],
    "risk": ["pixels", "age"],
    "mood": ["input_ids", "attention_mask"],
    "pair": ["input_ids", "attention_mask", "token_type_ids"],
}
IN_FILE = {"pixels": "image"}  # what the files of networks with an image alone call it


def whole(files: dict[str, Path], task: str, inputs: Arrays) -> np.ndarray:
    names = TAKES.get(task, ["pixels"])
    given = {IN_FILE.get(name, name) if len(names) == 1 else name: inputs[name] for name in names}
    return ort.InferenceSession(files[task]).run(None, given)[0]


def some(*names: str) -> Arrays:
    return {name: array for name, array in rows().items() if name in names}


@pytest.mark.parametrize("task", TAKES)
def test_a_task_takes_its_own_inputs(client: Any, files: dict[str, Path], task: str) -> None:
    answer = ask(client, task, some(*TAKES[task]), [task])
    np.testing.assert_allclose(answer.as_numpy(task), whole(files, task, rows()), atol=1e-5)


def test_tasks_with_different_inputs_are_asked_together(client: Any, files: dict[str, Path]) -> None:
    for names in (["kind", "risk"], ["mood"], ["kind", "mood", "pair"], [*TAKES]):
        needed = {name for task in names for name in TAKES[task]}
        answer = ask(client, "all_tasks", some(*needed), names)
        for task in names:
            np.testing.assert_allclose(answer.as_numpy(task), whole(files, task, rows()), atol=1e-5)


def test_what_is_missing_is_named_with_the_tasks_that_need_it(client: Any) -> None:
    with pytest.raises(
        InferenceServerException, match=r"needs input 'age' \(FP32, shape \[-1, 2\], first the rows\) for 'risk', which"
    ):
        ask(client, "all_tasks", some("pixels"), ["kind", "risk"])
    with pytest.raises(InferenceServerException, match=r"needs input 'input_ids' .* for 'mood', 'pair', which is missing"):
        ask(client, "all_tasks", some("pixels", "attention_mask", "token_type_ids", "age"))
    with pytest.raises(
        InferenceServerException, match=r"needs input 'age' \(FP32, shape \[-1, 2\], first the rows\), which is missing"
    ):
        ask(client, "risk", some("pixels"))


def test_what_no_output_needs_is_taken_but_must_be_right(client: Any, files: dict[str, Path]) -> None:
    answer = ask(client, "all_tasks", rows(), ["mood"])
    np.testing.assert_allclose(answer.as_numpy("mood"), whole(files, "mood", rows()), atol=1e-5)
    with pytest.raises(InferenceServerException, match=r"input 'age' has shape \[2, 3\]"):
        ask(client, "all_tasks", {**some("pixels"), "age": np.zeros((2, 3), np.float32)}, ["kind"])
    with pytest.raises(InferenceServerException, match="different numbers of rows"):
        ask(client, "all_tasks", {**some("pixels"), "age": np.zeros((3, 2), np.float32)}, ["kind"])
    with pytest.raises(InferenceServerException, match="Model 'kind' has no input 'age'"):
        ask(client, "kind", some("pixels", "age"))


def test_what_can_be_answered_is_where_a_request_allows_it(client: Any, files: dict[str, Path]) -> None:
    answer = ask(client, "all_tasks", some("pixels"), ["kind", "risk"], partial_results=True)
    np.testing.assert_allclose(answer.as_numpy("kind"), whole(files, "kind", rows()), atol=1e-5)
    assert answer.as_numpy("risk") is None
    with pytest.raises(InferenceServerException, match="needs input 'age'"):
        ask(client, "all_tasks", some("pixels"), ["risk"], partial_results=True)


def test_the_configuration_says_which_inputs_may_be_missing(server: BackgroundServer) -> None:
    with http_client.InferenceServerClient(server.http_address) as client:
        config = client.get_model_config("all_tasks")
        assert {tensor["name"]: tensor["optional"] for tensor in config["input"]} == dict.fromkeys(rows(), True)
        assert not any(tensor["optional"] for tensor in client.get_model_config("pair")["input"])
        assert {tensor["name"] for tensor in client.get_model_metadata("all_tasks")["inputs"]} == {*rows()}


def predicted(server: BackgroundServer, query: str = "") -> dict[str, Any]:
    body = _png(rows()["pixels"][0])
    sent = Request(f"http://{server.http_address}/predict{query}", data=body, headers={"Content-Type": "image/png"})
    with urlopen(sent) as answer:
        return dict(json.load(answer))


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def test_images_go_to_the_tasks_that_take_images(server: BackgroundServer) -> None:
    assert predicted(server)["tasks"].keys() == {"kind"}
    with pytest.raises(HTTPError) as refused:
        predicted(server, "?tasks=kind,risk")
    assert "Task 'risk' takes no images; send it tensors" in refused.value.read().decode()


def test_tasks_come_and_go_while_others_take_other_inputs(files: dict[str, Path], tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export_repository(opened({name: files[name] for name in ("kind", "risk")}), ExportOptions(repo, cuts=CutOptions("exact")))
    for coming in ("mood", LATER, "pair"):
        before = read_repository(repo)
        stay = {path: path.read_bytes() for name in before.segments for path in (repo / name).rglob("*") if path.is_file()}
        add_tasks(repo, opened({coming: files[coming]}), AddOptions())
        assert all(path.read_bytes() == content for path, content in stay.items())
    remove_tasks(repo, ["kind"], gc=True)
    inputs = rows()
    with (
        BackgroundServer(repo, http_port=0, grpc_port=0, threads=1) as running,
        http_client.InferenceServerClient(running.http_address) as connected,
    ):
        names = ["risk", "mood", LATER, "pair"]
        answer = ask((http_client, connected), "all_tasks", inputs, names)
        for name in names:
            np.testing.assert_allclose(answer.as_numpy(name), whole(files, name, inputs), atol=1e-5)
