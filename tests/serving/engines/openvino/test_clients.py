"""tritonclient, unchanged, against a server whose segments OpenVINO runs: the tests of the protocols, and deploying under load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from serving.client import predict
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.openvino.package import version
from serving.requests import InferRequest
from serving.router import Router
from serving.server import BackgroundServer
from tests.serving.engines.openvino.large import OPENVINO, write_large
from tests.serving.nets import LABELS, LAYERS, TASK_NAMES, images, whole
from tests.serving.protocol.test_protocols import client as client
from tests.serving.protocol.test_protocols import test_classification as test_classification
from tests.serving.protocol.test_protocols import test_health as test_health
from tests.serving.protocol.test_protocols import test_metadata as test_metadata

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """A real server on OpenVINO, in place of the session's."""
    path = write_large(tmp_path_factory.mktemp("served") / "repo").path
    with BackgroundServer(path, http_port=0, grpc_port=0, options=EngineOptions(OPENVINO), check_samples=True) as running:
        yield running


def test_metrics_name_what_computes(server: BackgroundServer) -> None:
    with urlopen(f"http://{server.http_address}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    assert f'espalier_engine_segments{{engine="openvino {version()} fp32"}} {len(LAYERS)}' in lines


def test_an_image_is_answered_by_all_tasks(server: BackgroundServer) -> None:
    picture = BytesIO()
    Image.fromarray(images(1)[0]).save(picture, "PNG")
    answer = predict(f"http://{server.http_address}", picture.getvalue(), TASK_NAMES)
    best = answer["tasks"]["late"]["labels"][0]["label"]
    assert set(answer["tasks"]) == set(TASK_NAMES)
    assert best == LABELS["late"][int(whole("late", images(1)).argmax())]


def test_under_load_no_request_fails_while_a_task_comes_and_goes(tmp_path: Path) -> None:
    repository = write_large(tmp_path / "repo")
    engine = EmbeddedEngine(repository, options=EngineOptions(OPENVINO))

    async def work() -> int:
        router = Router(repository, engine)
        await router.start()
        answers, request, stop = 0, InferRequest("probe", {"image": images(1)}), False

        async def client() -> None:
            nonlocal answers
            while not stop:
                found = (await router.infer(request)).outputs["probe"]
                np.testing.assert_allclose(found, whole("probe", images(1)), rtol=1e-4, atol=1e-5)
                answers += 1
                await asyncio.sleep(0.002)

        clients = [asyncio.ensure_future(client()) for _ in range(3)]
        for _ in range(5):
            await router.lifecycle.unload("late")
            await router.lifecycle.load("late")
            await router.infer(InferRequest("late", {"image": images(1)}))
        stop = True
        await asyncio.gather(*clients)
        assert "branch-late" in router.loaded()
        await router.aclose()
        return answers

    assert asyncio.run(work()) > 5
