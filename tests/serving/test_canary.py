"""Which version of a task answers: the current one, or its canary for a share of the requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from contract.repository import ALL_TASKS, Canary, Repository, Step
from serving.engines.in_memory import InMemoryEngine
from serving.errors import TaskFailed, UnknownModel
from serving.lifecycle import served_part
from serving.observe.prometheus import Metrics
from serving.requests import InferRequest, RequestedOutput
from serving.router import Router
from serving.server import BackgroundServer
from tests.serving.nets import LAYERS, images, make_repository, whole
from tests.serving.observe.test_metrics import samples


def repository(share: float = 0.25) -> Repository:
    """The family in which `late` has a canary with a branch of its own, and a previous version with another."""
    family = make_repository(Path("nowhere"))
    late = family.tasks["late"]
    branch = family.segments["branch-late"]
    versions = {}
    for name in ("new", "old"):
        steps = (late.steps[0], Step(f"branch-{name}", late.steps[1].inputs, late.steps[1].outputs))
        versions[name] = replace(late, steps=steps, version={"new": "2", "old": "0"}[name], labels=tuple("abcd"))
    segments = {f"branch-{name}": replace(branch, name=f"branch-{name}") for name in versions}
    late = replace(late, canary=Canary(versions["new"], share), previous=versions["old"])
    return Repository(family.path, {**family.segments, **segments}, {**family.tasks, "late": late})


def draws(*numbers: float) -> Callable[[], float]:
    endless: Iterator[float] = cycle(numbers)
    return lambda: next(endless)


def ask(requests: list[InferRequest], draw: Callable[[], float]) -> tuple[list[tuple[str, np.ndarray]], InMemoryEngine]:
    engine = InMemoryEngine({**LAYERS, "branch-new": lambda rows: LAYERS["branch-late"](rows) + 1})

    async def work() -> list[tuple[str, np.ndarray]]:
        router = Router(served_part(repository()), engine, draw=draw)
        await router.start()
        answers = [await router.infer(request) for request in requests]
        await router.aclose()
        return [(answer.version, answer.outputs["late"]) for answer in answers]  # type: ignore[misc]

    return asyncio.run(work()), engine


def test_a_share_of_the_requests_gets_the_canary_and_is_told_so() -> None:
    answers, engine = ask([InferRequest("late", {"image": images(1)})] * 8, draws(0.1, 0.25, 0.9, 0.24))
    assert [version for version, _ in answers] == ["2", "1", "1", "2"] * 2
    for version, values in answers:
        np.testing.assert_allclose(values, whole("late", images(1)) + (version == "2"), rtol=1e-5, atol=1e-6)
    assert Counter(run.segment for run in engine.runs) == {"trunk": 8, "branch-late": 4, "branch-new": 4}


def test_all_tasks_draws_for_the_tasks_that_are_asked_for() -> None:
    def request(*names: str) -> InferRequest:
        return InferRequest(ALL_TASKS, {"image": images(1)}, tuple(RequestedOutput(name) for name in names))

    drawn = iter([0.0, 0.9, 0.0])
    answers, engine = ask([request("late", "probe"), request("late"), request()], lambda: next(drawn))
    assert [bool(np.allclose(values, whole("late", images(1)))) for _, values in answers] == [False, True, False]
    assert "branch-new" in {run.segment for run in engine.runs}
    assert next(drawn, None) is None  # one draw for each request in which `late` is


def test_nobody_draws_for_other_tasks() -> None:
    def never() -> float:
        raise AssertionError

    async def work() -> None:
        router = Router(served_part(repository()), InMemoryEngine(LAYERS), draw=never)
        await router.start()
        await router.infer(InferRequest("probe", {"image": images(1)}))
        await router.infer(InferRequest("trunk", {"input": images(1)}))
        await router.aclose()

    asyncio.run(work())


def test_a_version_can_be_insisted_on() -> None:
    answers, _ = ask([InferRequest("late", {"image": images(1)}, version=version) for version in ("1", "2")], draws(0.0))
    assert [version for version, _ in answers] == ["1", "2"]
    with pytest.raises(UnknownModel):
        ask([InferRequest("late", {"image": images(1)}, version="0")], draws(0.0))  # the previous one is on disk only


def test_requests_are_counted_under_the_version_that_answers() -> None:
    async def work() -> dict[str, tuple[float, ...]]:
        router = Router(served_part(repository()), broken_canary(), draw=draws(0.1, 0.9, 0.9))
        metrics = Metrics()
        metrics.watch(router)
        await router.start()
        for _ in range(3):
            with suppress(TaskFailed):
                await router.infer(InferRequest("late", {"image": images(2)}))
        for _ in range(3):
            with suppress(TaskFailed):
                await router.predict(list(images(1)), ["late"])
        await router.aclose()
        found = samples(metrics.text().decode())
        return {
            version: tuple(
                sum(
                    number
                    for key, number in found.items()
                    if key[0] == name and {("model", "late"), ("version", version)} <= key[1]
                )
                for name in ("nv_inference_request_success", "nv_inference_count", "espalier_request_failures_total")
            )
            for version in ("1", "2")
        }

    assert asyncio.run(work()) == {"1": (4, 6, 0), "2": (0, 0, 2)}


def broken_canary() -> InMemoryEngine:
    return InMemoryEngine({**LAYERS, "branch-new": lambda rows: rows @ "x"})


@pytest.mark.slow
def test_a_canary_is_described_wherever_versions_are() -> None:
    canary = replace(LAYERS["branch-late"], name="branch-new")
    with BackgroundServer(
        served_part(repository()), InMemoryEngine({**LAYERS, "branch-new": canary}), http_port=0, grpc_port=0
    ) as server:
        with tritonclient.http.InferenceServerClient(server.http_address) as over_http:
            check_descriptions(over_http, over_http.get_model_repository_index(), over_http.get_inference_statistics())
        with tritonclient.grpc.InferenceServerClient(server.grpc_address) as over_grpc:
            index = over_grpc.get_model_repository_index(as_json=True)["models"]
            check_descriptions(over_grpc, index, over_grpc.get_inference_statistics(as_json=True), as_json=True)


def check_descriptions(client: Any, index: Any, statistics: Any, **options: Any) -> None:
    listed = [[(model["name"], model["version"]) for model in models] for models in (index, statistics["model_stats"])]
    for models in listed:
        assert sorted(version for name, version in models if name == "late") == ["1", "2"]
    for version in ("1", "2"):
        assert client.is_model_ready("late", version)
        assert client.get_model_metadata("late", version, **options)["versions"] == ["1", "2"]
        found = client.get_inference_statistics("late", version, **options)["model_stats"]
        assert [model["version"] for model in found] == [version]
        config = client.get_model_config("late", version, **options)
        steps = config.get("config", config)["ensemble_scheduling"]["step"]
        assert steps[-1]["model_name"] == {"1": "branch-late", "2": "branch-new"}[version]
    with pytest.raises(InferenceServerException, match="known are: 1, 2"):
        client.get_model_metadata("late", "0")


def test_predict_draws_too_and_uses_the_canarys_labels() -> None:
    async def work() -> list[str]:
        engine = InMemoryEngine({**LAYERS, "branch-new": LAYERS["branch-late"]})
        router = Router(served_part(repository()), engine, draw=draws(0.9, 0.0))
        await router.start()
        found = [await router.predict(list(images(1)), ["late", "probe"], top_k=1) for _ in range(2)]
        await router.aclose()
        return [prediction.tasks["late"][0].labels[0].label for prediction in found]

    current, canary = asyncio.run(work())
    assert current in "nesw"
    assert canary in "abcd"


def test_only_what_requests_can_come_to_is_loaded() -> None:
    assert repository().segments.keys() - served_part(repository()).segments.keys() == {"branch-old"}
