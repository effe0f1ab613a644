"""Triton's Python backend for ONNX, without Triton: requests that go through the network together."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from serving.local_triton.onnx_backend import THREADS_VARIABLE, check_names, run_together, session_options

OUTPUTS = ("sum", "product", "text")


@pytest.fixture(scope="module")
def session() -> ort.InferenceSession:
    """Two inputs and three outputs, row by row."""
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("a", "b", "sum", "product")}
    text = helper.make_tensor_value_info("text", TensorProto.STRING, ["n", 2])
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Mul", ["a", "b"], ["product"]),
        helper.make_node("Cast", ["a"], ["text"], to=TensorProto.STRING),
    ]
    graph = helper.make_graph(nodes, "net", [infos["a"], infos["b"]], [infos["sum"], infos["product"], text])
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return ort.InferenceSession(model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"])


requests = st.lists(st.tuples(st.integers(1, 4), st.permutations(OUTPUTS), st.integers(1, 3)), min_size=1, max_size=5)


@settings(max_examples=40)
@given(requests)
def test_together_each_gets_what_it_would_get_alone(
    session: ort.InferenceSession, asked: list[tuple[int, list[str], int]]
) -> None:
    random = np.random.default_rng(0)
    feeds = [{name: random.integers(0, 9, (rows, 2)).astype(np.float32) for name in "ab"} for rows, _, _ in asked]
    wanted = [names[:count] for _, names, count in asked]
    for feed, names, found in zip(feeds, wanted, run_together(session, feeds, wanted), strict=True):
        assert list(found) == names
        for name, expected in zip(names, session.run(names, feed), strict=True):
            np.testing.assert_array_equal(found[name], expected)


def test_threads_are_few_and_do_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    assert session_options().intra_op_num_threads == 1
    monkeypatch.setenv(THREADS_VARIABLE, "3")
    options = session_options()
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_what_the_configuration_says_must_be_there() -> None:
    check_names(["a", "b"], ["b", "a"], "inputs")
    with pytest.raises(ValueError, match=r"the inputs of config.pbtxt and of the ONNX model differ in \['b', 'c'\]"):
        check_names(["a", "b"], ["a", "c"], "inputs")
