"""What a classifier's outputs are is recognised at export, recorded with the task, and what clients get as scores follows from it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from contract.preprocessing import Preprocessing
from contract.repository import read_repository
from espalier.commands.options.reports import describe_scores
from exporter.add import AddOptions, add_tasks
from exporter.build.scores import scores_of
from exporter.deploy import deploy, promote, rollback
from exporter.export import ExportOptions, export_repository
from exporter.graph.passes.canonical import canonicalise
from exporter.remove import remove_tasks
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from serving.server import BackgroundServer
from tests.exporter.graphs import SIZE, Net
from tests.serving.protocol.http.test_http import Http, png

Nodes = Sequence[tuple[str, str, str, dict[str, object]]]  # operator, inputs, output, attributes

SOFTMAX_SPELT_OUT: Nodes = [
    ("ReduceMax", "logits", "most", {"axes": [-1], "keepdims": 1}),
    ("Sub", "logits most", "shifted", {}),
    ("Exp", "shifted", "e", {}),
    ("ReduceSum", "e last", "sum", {"keepdims": 1}),
    ("Div", "e sum", "y", {}),
]
SIGMOID_SPELT_OUT: Nodes = [
    ("Neg", "logits", "n", {}),
    ("Exp", "n", "e", {}),
    ("Add", "e one", "below", {}),
    ("Div", "one below", "y", {}),
]
SWISH: Nodes = [*SIGMOID_SPELT_OUT[:3], ("Div", "logits below", "y", {})]
SOFTMAX = ("Softmax", "logits", "s", {"axis": 1})
TO_FRACTIONS = ("Sigmoid", "logits", "s", {})
ENDS: dict[str, tuple[Nodes, str]] = {
    "logits": ([("Identity", "logits", "y", {})], "logits"),
    "relu": ([("Relu", "logits", "y", {})], "logits"),
    "swish": (SWISH, "logits"),
    "clipped logits": ([("Clip", "logits minus one", "y", {})], "logits"),
    "softmax": ([("Softmax", "logits", "y", {"axis": 1})], "probabilities"),
    "softmax, last axis": ([("Softmax", "logits", "y", {"axis": -1})], "probabilities"),
    "softmax, reshaped": ([SOFTMAX, ("Reshape", "s three", "r", {}), ("Squeeze", "r last", "y", {})], "probabilities"),
    "softmax, half": ([SOFTMAX, ("Cast", "s", "h", {"to": 10}), ("Cast", "h", "y", {"to": 1})], "probabilities"),
    "softmax, quantised": (
        [SOFTMAX, ("QuantizeLinear", "s step", "q", {}), ("DequantizeLinear", "q step", "y", {})],
        "independent",  # they hardly sum to one any more
    ),
    "softmax, one dropped": ([SOFTMAX, ("Slice", "s one_ five_ one_", "y", {})], "independent"),
    "softmax, spelt out": (SOFTMAX_SPELT_OUT, "probabilities"),
    "softmax, averaged": ([SOFTMAX, ("Add", "s s", "a", {}), ("Mul", "a half", "y", {})], "probabilities"),
    "softmax, times 100": ([SOFTMAX, ("Mul", "s hundred", "y", {})], "logits"),  # nobody knows
    "softmax, log": ([SOFTMAX, ("Log", "s", "y", {})], "log_probabilities"),
    "softmax, log of a little more": ([SOFTMAX, ("Add", "s tiny", "a", {}), ("Log", "a", "y", {})], "log_probabilities"),
    "log softmax": ([("LogSoftmax", "logits", "y", {"axis": 1})], "log_probabilities"),
    "sigmoid": ([("Sigmoid", "logits", "y", {})], "independent"),
    "sigmoid, moved": ([TO_FRACTIONS, ("Clip", "s tiny one", "c", {}), ("Identity", "c", "y", {})], "independent"),
    "sigmoid and its rest": ([TO_FRACTIONS, ("Sub", "one s", "r", {}), ("Concat", "s s", "y", {"axis": 1})], "independent"),
    "sigmoid, spelt out": (SIGMOID_SPELT_OUT, "independent"),
    "sigmoid, log": ([TO_FRACTIONS, ("Log", "s", "y", {})], "log_probabilities"),
    "hard sigmoid": ([("HardSigmoid", "logits", "y", {})], "independent"),
    "one number": ([("Slice", "logits zero_ one_ one_", "y", {})], "value"),
    "one sigmoid": ([TO_FRACTIONS, ("Slice", "s zero_ one_ one_", "y", {})], "independent"),
    "one class": ([("ArgMax", "logits", "y", {"axis": 1, "keepdims": 1})], "value"),
    "rounded": ([("Cast", "logits", "y", {"to": TensorProto.INT32})], "logits"),
}
CONSTANTS = {
    **{"one": np.float32(1), "minus": np.float32(-1), "half": np.float32(0.5), "tiny": np.float32(1e-7), "step": np.float32(1 / 64)},
    **{"hundred": np.float32(100), "last": np.array([-1]), "three": np.array([0, 0, 1])},
    **{"zero_": np.array([0]), "one_": np.array([1]), "five_": np.array([5])},
}  # fmt: skip


def network(nodes: Nodes, seed: int = 0) -> ir.Model:
    """Logits of five classes from six numbers, and then `nodes` up to y."""
    weight = (np.random.default_rng(seed).standard_normal((6, 5)) * 2).astype(np.float32)
    made = [helper.make_node("MatMul", ["x", "w"], ["logits"])]
    for operator, inputs, output, attributes in nodes:
        made.append(helper.make_node(operator, inputs.split(), [output], **attributes))
    kind = {"Cast": TensorProto.INT32, "ArgMax": TensorProto.INT64}.get(nodes[-1][0], TensorProto.FLOAT)
    kind = TensorProto.FLOAT if nodes[-1][3].get("to") == 1 else kind
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in {"w": weight, **CONSTANTS}.items()]
    graph = helper.make_graph(made, "net", [value("x", TensorProto.FLOAT, ["n", 6])], [value("y", kind, ["n", None])], tensors)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9))


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_a_network_says_what_it_answers(end: str) -> None:
    nodes, expected = ENDS[end]
    model = canonicalise(network(nodes))
    rows = open_session(model).run(None, {"x": np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)})[0]
    assert scores_of(model.graph.outputs[0], rows) == expected


def ended(operator: str, seed: int, classes: int = 3) -> TaskModel:
    """The images' network with an operator at its end."""
    proto = Net(blocks=(1,), head=seed, classes=classes).proto()
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(helper.make_node(operator, ["before"], ["logits"]))
    onnx.checker.check_model(proto)
    return TaskModel(ir.from_proto(proto), ("a", "b", "c")[:classes], Preprocessing(SIZE, SIZE))


TASKS = {
    "plain": (ended("Identity", 1), "logits"),
    "soft": (ended("Softmax", 2), "probabilities"),
    "sigmoid": (ended("Sigmoid", 3), "independent"),
    "log": (ended("LogSoftmax", 4), "log_probabilities"),
    "one": (ended("Identity", 5, classes=1), "value"),
}


def loaders(*names: str) -> Sources:
    return Sources(
        {name: (lambda name=name: dataclasses.replace(TASKS[name][0], model=TASKS[name][0].model.clone())) for name in names}
    )


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
def test_scores_are_what_the_network_means_through_every_change(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export_repository(loaders("plain", "soft", "one"), ExportOptions(repo))
    add_tasks(repo, loaders("sigmoid", "log"), AddOptions())
    assert {name: task.scores for name, task in read_repository(repo).tasks.items()} == {
        name: kind for name, (_, kind) in TASKS.items()
    }

    other = Sources({"plain": loaders("soft").tasks["soft"]})
    deploy(repo, other, canary=0.5)
    assert [version.scores for version in read_repository(repo).tasks["plain"].versions] == ["logits", "probabilities"]
    promote(repo, "plain")
    assert [version.scores for version in read_repository(repo).tasks["plain"].versions] == ["probabilities", "logits"]
    rollback(repo, "plain")
    assert read_repository(repo).tasks["plain"].scores == "logits"
    deploy(repo, loaders("plain"))  # as it is already
    assert read_repository(repo).tasks["plain"].version == "1"

    remove_tasks(repo, ["soft"])
    add_tasks(repo, loaders("soft"), AddOptions())
    picture = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    with BackgroundServer(repo, http_port=0, grpc_port=0, threads=1) as server:
        ask = Http(server)
        status, answer = ask("POST", "/predict", png(picture))
        kinds = {task["name"]: task["scores"] for task in ask("GET", "/tasks")[1]["tasks"]}
        raw = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, SIZE, SIZE, 3], "data": picture.ravel().tolist()}]}
        _, tensors = ask("POST", "/v2/models/all_tasks/infer", json.dumps(raw))
        ask.connection.close()
    assert (status, kinds) == (200, {name: kind for name, (_, kind) in TASKS.items()})
    whole = {output["name"]: np.array(output["data"]) for output in tensors["outputs"]}
    e = np.exp(whole["plain"] - whole["plain"].max())
    expected = {**whole, "plain": e / e.sum(), "log": np.exp(whole["log"])}
    for name, values in expected.items():
        labels = answer["tasks"][name]["labels"]
        order = np.argsort(-whole[name])
        assert [item["label"] for item in labels] == ["abc"[index] for index in order]
        np.testing.assert_allclose([item["score"] for item in labels], values[order], rtol=1e-4)


def test_what_was_assumed_is_said_in_a_line() -> None:
    from tests.serving.nets import make_task

    def task(name: str, scores: str) -> object:
        return dataclasses.replace(make_task("late"), name=name, scores=scores)

    assert describe_scores([task("a", "logits"), task("b", "logits")]) == "Scores: a softmax of the outputs."
    assert describe_scores([task("a", "logits"), task("b", "independent"), task("c", "logits"), task("d", "")]) == (
        "Scores: a softmax of the outputs (a, c); the outputs as they are, each from 0 to 1 by itself (b)."
    )
    assert describe_scores([task("a", "")]) is None
