"""A model in memory is opened without a copy of its weights in a message."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from exporter.errors import CannotRun
from exporter.sources.runtime import open_session, run_session
from tests.exporter.graphs import Net

ROWS = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)


def large(dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Model:
    rows = ir.Value(name="rows", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 64]))
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    values = ir.Value(name="weight", const_value=ir.tensor(weight.astype(dtype.numpy()), name="weight"))
    values.type, values.shape = ir.TensorType(dtype), ir.Shape([64, 64])
    cast = ir.node("Cast", [values], {"to": ir.AttrInt64("to", ir.DataType.FLOAT.value)})
    node = ir.node("MatMul", [rows, cast.outputs[0]])
    node.outputs[0].name, node.outputs[0].type = "answer", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([rows], node.outputs, nodes=[cast, node], initializers=[values], opset_imports={"": 18}, name="net")
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("optimised", [True, False])
def test_it_answers_as_its_file_does(optimised: bool, tmp_path: Any) -> None:
    for model, name, rows in ((Net().model(), "image", ROWS), (large(), "rows", np.ones((2, 64), np.float32))):
        ir.save(model, tmp_path / "net.onnx")
        sessions = [open_session(source, optimised=optimised) for source in (model, tmp_path / "net.onnx")]
        ours, theirs = (run_session(session, {name: rows}, "it")[0] for session in sessions)
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["FLOAT", "DOUBLE", "FLOAT16", "INT8", "BFLOAT16"])
def test_weights_of_any_kind_are_read(name: str) -> None:
    model = large(ir.DataType[name])
    (value,) = model.graph.initializers.values()
    assert value.const_value is not None
    expected = np.ones((1, 64), np.float32) @ value.const_value.numpy().astype(np.float32)
    found = run_session(open_session(model), {"rows": np.ones((1, 64), np.float32)}, "it")[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_large_weights_are_not_in_the_message_and_stay_with_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bytes] = []
    open_as_ever = ort.InferenceSession

    def watching(content: bytes, *others: Any, **options: Any) -> ort.InferenceSession:
        given.append(content)
        return open_as_ever(content, *others, **options)

    monkeypatch.setattr(ort, "InferenceSession", watching)
    model = large()
    (before,) = (value.const_value for value in model.graph.initializers.values())
    open_session(model)
    assert len(given[0]) < 1000 < 64 * 64 * 4
    assert [value.const_value for value in model.graph.initializers.values()] == [before]


@pytest.mark.parametrize("optimised", [True, False])
def test_a_session_outlives_the_model_that_it_was_opened_of(optimised: bool) -> None:
    rows = np.ones((2, 64), np.float32)
    model = large()
    session = open_session(model, optimised=optimised)
    expected = run_session(session, {"rows": rows}, "it")[0]
    (weight,) = (weakref.ref(value.const_value.numpy()) for value in model.graph.initializers.values() if value.const_value)
    del model
    gc.collect()
    others = [np.full((64, 64), 7, np.float32) for _ in range(100)]  # where it lay
    assert np.array_equal(run_session(session, {"rows": rows}, "it")[0], expected)
    assert weight() is not None
    del session, others
    gc.collect()
    assert weight() is None


def test_what_cannot_be_run_is_one_sentence() -> None:
    model = large()
    model.graph.node(1).replace_input_with(1, model.graph.inputs[0])
    model.graph.node(1).op_type = "NoSuchOperator"
    with pytest.raises(CannotRun, match="NoSuchOperator"):
        open_session(model)
