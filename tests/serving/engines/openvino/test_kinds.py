"""Other kinds of networks on OpenVINO: texts of any length, and models that espalier did not export."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from contract.plan import make_plan
from contract.repository.read import RepositoryReader
from serving.engines.embedded import EmbeddedEngine
from serving.engines.onnxruntime.plain import read_plain
from tests.serving.engines.openvino.large import LARGE, engine_on
from tests.serving.free_nets import TEXT, text, whole, write_free
from tests.serving.plain_models import identity, write_model

pytestmark = pytest.mark.slow


def test_texts_of_any_length_are_answered_as_by_the_whole_network(tmp_path: Path) -> None:
    repository = write_free(tmp_path / "repo")
    segments = {name: replace(segment, macs=LARGE) for name, segment in repository.segments.items()}
    repository = replace(repository, segments=segments)
    engine = engine_on(repository)

    async def ask(length: int) -> None:
        inputs = text(3, length, length, hidden=length // 2)
        answer = await engine.infer(make_plan(repository, TEXT), inputs)
        for task in TEXT:
            np.testing.assert_allclose(answer.outputs[task], whole(task, inputs), atol=1e-5)

    async def work() -> None:
        await engine.start()
        try:
            assert all(name.startswith("openvino") for name in engine.computed_by())
            for length in (5, 1, 9):
                await ask(length)
        finally:
            await engine.aclose()

    asyncio.run(work())


def test_models_that_espalier_did_not_export_run_on_onnx_runtime_which_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(tmp_path / "models/twice", identity(factor=2))
    repository = RepositoryReader(tmp_path / "models", partial(read_plain, memory_limit_bytes=None)).read()
    engine: EmbeddedEngine = engine_on(repository)

    async def work() -> None:
        with caplog.at_level(logging.INFO):
            await engine.start()
        try:
            plan = make_plan(repository, ["twice"])
            answer = await engine.infer(plan, {plan.inputs[0]: np.ones((2, 3), np.float32)})
            assert [kind.split()[0] for kind in engine.computed_by()] == ["onnxruntime"]
        finally:
            await engine.aclose()
        (found,) = answer.outputs.values()
        assert found.shape[0] == 2

    asyncio.run(work())
    assert "Run on ONNX Runtime, because espalier did not export them: twice" in caplog.text
