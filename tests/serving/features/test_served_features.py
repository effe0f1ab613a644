"""A real server with a feature cache, and one without it, over HTTP, gRPC and in Python: the same bits, and what is said of them."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from PIL import Image
from typer.testing import CliRunner

import espalier
from contract.repository import Repository
from contract.repository.config import ALL_TASKS
from espalier.cli import app
from serving.engines.embedded import EngineOptions
from serving.engines.in_memory import InMemoryEngine
from serving.engines.sessions.runtime import SessionStoreOptions
from serving.errors import FeaturesElsewhere
from serving.features.kept_tensors import ENTRY_BYTES
from serving.server import BackgroundServer
from tests.serving import exact_nets
from tests.serving.nets import LAYERS, TASK_NAMES, images

pytestmark = pytest.mark.slow

MIB = 1 << 20


@pytest.fixture
def own(repository: Repository) -> Iterator[BackgroundServer]:
    with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1, feature_cache_bytes=MIB) as running:
        yield running


@pytest.fixture
def own_repository(tmp_path: Path) -> Repository:
    return exact_nets.write_family(tmp_path / "repo", {"a": 11, "b": 12})


def infer(server: BackgroundServer, kind: Any, model: str, rows: int = 1, seed: int = 0) -> tuple[dict[str, bytes], str]:
    """Return the outputs as bytes, and the parameter `cached`."""
    address = server.http_address if kind is tritonclient.http else server.grpc_address
    with kind.InferenceServerClient(address) as client:
        tensor = kind.InferInput("image", [rows, 8, 8, 3], "UINT8")
        tensor.set_data_from_numpy(images(rows, seed))
        result = client.infer(model, [tensor])
        response = result.get_response()
        names = (
            [one["name"] for one in response["outputs"]] if kind is tritonclient.http else [one.name for one in response.outputs]
        )
        if kind is tritonclient.http:
            cached = response.get("parameters", {}).get("cached", "")
        else:
            cached = response.parameters["cached"].string_param if "cached" in response.parameters else ""
        return {name: result.as_numpy(name).tobytes() for name in names}, cached


@pytest.mark.parametrize("kind", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_answers_are_those_of_a_server_without_it_to_the_bit(kind: Any, own: BackgroundServer, server: BackgroundServer) -> None:
    for rows in (1, 3):
        for number, task in enumerate((*TASK_NAMES, ALL_TASKS, *TASK_NAMES)):
            found, cached = infer(own, kind, task, rows, seed=7)
            assert (found, "") == infer(server, kind, task, rows, seed=7)
            assert cached == ("trunk" if number else "")


def test_a_request_in_parts_is_cached_as_a_whole(own: BackgroundServer, server: BackgroundServer) -> None:
    first, _ = infer(own, tritonclient.http, "colour", 6)
    second, cached = infer(own, tritonclient.http, ALL_TASKS, 6)
    assert cached == "trunk"
    assert second == infer(server, tritonclient.http, ALL_TASKS, 6)[0]
    assert first["colour"] == second["colour"]


def predict(server: BackgroundServer, task: str) -> Any:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(file, "PNG")
    with urlopen(
        Request(f"http://{server.http_address}/predict?tasks={task}", file.getvalue(), {"content-type": "image/png"})
    ) as reply:
        return json.loads(reply.read())


def test_an_answer_about_an_image_says_what_did_not_run(own: BackgroundServer, server: BackgroundServer) -> None:
    assert predict(own, "colour")["cached"] == []
    answer = predict(own, "late")
    assert answer["cached"] == ["trunk"]
    assert [run["segment"] for run in answer["segments"]] == ["branch-late"]
    assert answer["tasks"] == predict(server, "late")["tasks"]
    assert predict(server, "late")["cached"] == []


def test_what_a_deploy_changes_of_the_trunk_is_not_taken_from_before(own_repository: Repository) -> None:
    """The same names of tasks, on another trunk: what the old one made is of no use, and goes with it."""
    path = own_repository.path
    with BackgroundServer(path, http_port=0, grpc_port=0, threads=1, feature_cache_bytes=MIB, admin_token="x") as server:
        before = infer(server, tritonclient.http, "b")[0]
        shutil.rmtree(path)
        exact_nets.write_family(path, {"a": 11, "b": 12}, trunk="trunk-2")
        with tritonclient.http.InferenceServerClient(server.http_address) as client:
            for task in ("a", "b"):
                client.load_model(task, headers={"authorization": "Bearer x"})
        after, cached = infer(server, tritonclient.http, "a")
        assert cached == ""
        assert infer(server, tritonclient.http, "b") == (before, "trunk-2")
        np.testing.assert_array_equal(np.frombuffer(after["a"], np.float32), exact_nets.answer(11, images(1)).reshape(-1))


def test_in_python_too(repository: Repository) -> None:
    options = EngineOptions(SessionStoreOptions(1))
    with (
        espalier.open(repository.path, options, feature_cache_bytes=MIB) as kept,
        espalier.open(repository.path, options) as plain,
    ):
        for task in TASK_NAMES:
            found, wanted = (one.infer(task, {"image": images(2)})[task] for one in (kept, plain))
            np.testing.assert_array_equal(found, wanted)
        picture = np.random.default_rng(3).integers(0, 256, (9, 11, 3), dtype=np.uint8)
        kept.predict(picture, ["colour"])
        assert kept.predict(picture, ["late"]).cached == ("trunk",)


def test_a_server_that_has_others_compute_is_refused(repository: Repository) -> None:
    class Elsewhere(InMemoryEngine):
        batches_elsewhere = True

    with pytest.raises(FeaturesElsewhere, match="no feature cache where other servers compute"):
        BackgroundServer(repository, Elsewhere(LAYERS), http_port=0, grpc_port=0, feature_cache_bytes=MIB).__enter__()
    line = ["serve", "repo", "--engine", "triton", "--triton-url", "grpc://127.0.0.1:1", "--feature-cache", "1MB"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 2
    assert re.search(
        r"--feature-cache.*is of use with --engine embedded or openvino.*only", re.sub(r"[\s│]+", " ", result.output)
    )


def test_what_it_does_is_in_the_metrics(own: BackgroundServer) -> None:
    for task in ("colour", "late", "parity"):
        infer(own, tritonclient.http, task)
    with urlopen(f"http://{own.http_address}/metrics") as reply:
        lines = reply.read().decode().splitlines()
    pairs = (
        line.removeprefix("espalier_feature_cache_").rsplit(" ", 1) for line in lines if line.startswith("espalier_feature_")
    )
    found = {name: float(value) for name, value in pairs}
    assert found == {
        'requests_total{result="hit"}': 2,
        'requests_total{result="wait"}': 0,
        'requests_total{result="miss"}': 1,
        "evictions_total": 0,
        "tensors": 1,
        "bytes": 7 * 4 + ENTRY_BYTES,
    }
