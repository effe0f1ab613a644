"""Repositories in int8 are served as others are: the samples that were recorded hold when they are loaded, in every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from contract.plan import make_plan
from contract.repository import ALL_TASKS, Repository
from contract.repository.model import FP32_FOLDER
from espalier.client import Client
from exporter.export import ExportOptions, export_repository
from exporter.sharing.choose import CutOptions
from serving.local_triton.command import TritonOptions
from serving.local_triton.environment import set_up
from serving.local_triton.errors import TritonUnavailable
from serving.local_triton.local import local_triton
from serving.parity import check_answers
from serving.server import BackgroundServer
from tests.exporter.precision.nets import fine, images, in_int8, loud, plain, sources
from tests.serving.engines.openvino.large import LARGE, engine_on
from tests.serving.local_triton.tritons import connect, embedded_answers

pytest.importorskip("nncf", reason="networks are quantised by the extra `quantize`")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

ROWS = images(5, seed=9)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    options = ExportOptions(tmp_path_factory.mktemp("int8") / "repo", cuts=CutOptions("exact"), precision=in_int8())
    return export_repository(sources(plain=plain(), loud=loud(), fine=fine()), options).repository


@pytest.fixture(scope="module")
def expected(repository: Repository) -> dict[str, np.ndarray]:
    return dict(embedded_answers(repository, {"image": ROWS}))


def test_a_server_checks_its_samples_and_answers(repository: Repository, expected: dict[str, np.ndarray]) -> None:
    with BackgroundServer(repository, http_port=0, grpc_port=0) as server:
        client = Client(f"http://{server.http_address}")
        for task in repository.tasks.values():
            answers = client.infer(task.name, {"image": ROWS})
            check(answers, {output.name: expected[output.name] for output in task.outputs})


def test_openvino_is_within_what_was_recorded(repository: Repository, expected: dict[str, np.ndarray]) -> None:
    large = replace(repository, segments={name: replace(one, macs=LARGE) for name, one in repository.segments.items()})

    async def infer() -> dict[str, np.ndarray]:
        engine = engine_on(large)
        await engine.start()
        try:
            await check_answers(engine, large, large.tasks.values())
            return dict((await engine.infer(make_plan(large, list(large.tasks)), {"image": ROWS})).outputs)
        finally:
            await engine.aclose()

    check(asyncio.run(infer()), expected, limit=0.1)


def test_triton_serves_it_and_lists_nothing_of_what_lies_beside(repository: Repository, expected: dict[str, np.ndarray]) -> None:
    try:
        set_up()
    except TritonUnavailable as error:
        pytest.skip(str(error))
    with local_triton(repository.path, TritonOptions()) as triton:
        client = connect("http", triton.addresses)
        try:
            check(client.infer(ALL_TASKS, {"image": ROWS}, expected), expected)
            listed = {model["name"]: model.get("state") for model in client.server.get_model_repository_index()}
        finally:
            client.close()
    assert FP32_FOLDER not in listed
    assert set(listed.values()) == {"READY"}
    assert set(repository.segments) <= listed.keys()


def check(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], limit: float = 1e-4) -> None:
    """limit: of the outputs' spread."""
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= limit * np.std(values, axis=0).max(), name
