"""bf16 on this processor: the answers are near, what cancels large numbers stays in fp32, and loads go by the same rule."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from contract.plan import make_plan
from contract.repository import Repository, read_repository
from serving.engines.embedded import EmbeddedEngine
from serving.engines.openvino import package
from serving.engines.openvino.package import chosen_precision, has_bf16
from serving.engines.sessions.runtime import Precision
from serving.errors import PrecisionUnavailable
from serving.parity import check_answers
from tests.serving.engines.openvino.large import BF16, SAMPLE, engine_on, recorded, write_large, write_segment, write_task
from tests.serving.nets import LAYERS, TASK_NAMES, make_task, whole, write_repository

pytestmark = pytest.mark.slow
needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this processor has no instructions for bf16")


def cancelling(name: str) -> onnx.ModelProto:
    """What the segment `name` computes, by way of numbers that are larger by 4,000, which are taken away again in a second product."""
    layer = LAYERS[name]
    weight, bias = layer.weights
    width = len(bias)
    nodes = [
        helper.make_node("Gemm", ["input", "weight", "raised"], ["high"]),
        helper.make_node("Relu", ["high"], ["still high"]),
        helper.make_node("Gemm", ["still high", "same", "lowered"], ["linear"]),
        helper.make_node("Tanh", ["linear"], ["output"]),
    ]
    same = np.eye(width, dtype=np.float32) + 0.25  # not what a compiler sees through
    values = {"weight": weight, "raised": bias + 4000, "same": np.linalg.inv(same) @ same, "lowered": np.full(width, -4000)}
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["rows", layer.sizes[0]])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", width])],
        [numpy_helper.from_array(np.asarray(value, np.float32), key) for key, value in values.items()],
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def answers(engine: EmbeddedEngine, repository: Repository) -> dict[str, np.ndarray]:
    async def infer() -> dict[str, np.ndarray]:
        await engine.start()
        try:
            await check_answers(engine, repository, repository.tasks.values())
            answer = await engine.infer(make_plan(repository, TASK_NAMES), {"image": SAMPLE})
        finally:
            await engine.aclose()
        return dict(answer.outputs)

    return asyncio.run(infer())


@needs_bf16
def test_answers_in_bf16_are_near_and_a_segment_that_cancels_large_numbers_stays_in_fp32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "repo"
    write_large(path)
    write_segment(path, "mid", cancelling("mid"))
    repository = read_repository(path)
    with caplog.at_level(logging.INFO):
        found = answers(engine_on(repository, BF16), repository)
    assert "Segment 'mid' stays in fp32: on OpenVINO in bf16 its answer to the sample differs by" in caplog.text
    assert "8 on OpenVINO" in caplog.text
    differences = []
    for task in TASK_NAMES:
        right = whole(task, SAMPLE)
        differences.append(np.abs(found[task] - right).max() / right.std())
        assert found[task].argmax() == right.argmax()
    assert 1e-4 < max(differences) <= 0.1  # rounded, and as little as is allowed


@needs_bf16
def test_without_recorded_samples_all_stays_in_fp32_and_a_line_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    repository = write_large(tmp_path / "repo", records=False)
    found = answers(engine_on(repository, BF16), repository)
    for task in TASK_NAMES:
        np.testing.assert_allclose(found[task], whole(task, SAMPLE), rtol=1e-4, atol=1e-5)
    assert "No sample is recorded for segments trunk, " in caplog.text


@needs_bf16
def test_a_task_that_is_loaded_later_is_tried_before_it_is_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "repo"
    write_repository(path)
    for name in LAYERS:
        write_segment(path, name)
    write_segment(path, "mid", cancelling("mid"))
    for name in TASK_NAMES:
        write_task(path, recorded(make_task(name), whole(name, SAMPLE)))
    repository = read_repository(path)
    first = replace(
        repository,
        tasks={"late": repository.tasks["late"]},
        segments={name: repository.segments[name] for name in ("trunk", "branch-late")},
    )
    engine = engine_on(first, BF16)

    async def load() -> None:
        await engine.start()
        try:
            assert "stays in fp32" not in caplog.text
            await engine.load(repository)
            assert "Segment 'mid' stays in fp32" in caplog.text
            answer = await engine.infer(make_plan(repository, ["probe"]), {"image": SAMPLE})
            np.testing.assert_allclose(answer.outputs["probe"], whole("probe", SAMPLE), atol=0.1)
        finally:
            await engine.aclose()

    asyncio.run(load())


def test_bf16_on_a_processor_without_it_is_refused_and_auto_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "has_bf16", lambda: False)
    with pytest.raises(PrecisionUnavailable, match=r"This processor does not compute in bf16 .*; choose fp32 or auto\."):
        chosen_precision(Precision.bf16)
    assert chosen_precision(Precision.auto) is Precision.fp32
    monkeypatch.setattr(package, "has_bf16", lambda: True)
    assert [chosen_precision(asked) for asked in Precision] == [Precision.bf16, Precision.fp32, Precision.bf16]
