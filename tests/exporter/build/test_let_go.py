"""Weights go when nobody needs them any more, and not when Python happens to look for cycles: graphs are cycles."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from contract.dtypes import Array
from exporter.build.analysis import Analysis
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.sources.test_runtime import large


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_network_that_was_read_is_in_files_alone(tmp_path: Path) -> None:
    weights: list[weakref.ref[Array]] = []

    def load(seed: int) -> TaskModel:
        model = large()
        (value,) = model.graph.initializers.values()
        array = np.random.default_rng(seed).standard_normal((64, 64)).astype(np.float32)
        value.const_value = ir.tensor(array, name="weight")
        weights.append(weakref.ref(array))
        return TaskModel(model)

    # The second is rewritten as the first was, so that its own graph is left over.
    analysis = Analysis(tmp_path)
    analysis.read(Sources({"one": lambda: load(1), "two": lambda: load(2)}), lambda what, done, total: None)
    assert [reference() is None for reference in weights] == [True, True]
    kept = [value.const_value for model in analysis.models.values() for value in model.model.graph.initializers.values()]
    assert [isinstance(tensor, ir.ExternalTensor) for tensor in kept] == [True, True]
