"""Separate networks that are composed from a repository's own segments."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from benchmarks.framework.errors import NoSuchEngine
from benchmarks.models.whole_networks import whole_networks
from benchmarks.repository.answers import answer_of, differs
from benchmarks.repository.engines import AS_EXPORTED, EngineChoice, find_engines
from benchmarks.repository.networks import Answers, SeparateNetworks
from benchmarks.repository.precisions import segment_precision
from contract.plan import make_plan
from contract.repository import Repository, Segment, Step, Task, TensorSpec
from serving.engines.embedded import EmbeddedEngine
from tests.serving import free_nets

X = TensorSpec("x", "FP32", (3,))
GATE = """<ir_version: 8, opset_import: ["" : %d]> net (float[N, 3] input) => (float[N, 3] output) {
    sum = ReduceSum <keepdims = 0> (input)
    zero = Constant <value = float {0.0}> ()
    positive = Greater (sum, zero)
    output = If (positive) <
        then_branch = yes () => (float[N, 3] above) { scaled = Mul (input, weight) above = Add (scaled, weight) },
        else_branch = no () => (float[N, 3] below) { below = Neg (input) }
    >
}"""


def write_gates(folder: Path, opsets: tuple[int, int] = (17, 17)) -> Repository:
    """A task of two gates, each a segment with a weight of its own that only the body of its If uses."""
    segments = {}
    for place, name in enumerate(("first", "second")):
        model = parser.parse_model(GATE % opsets[place])
        model.graph.initializer.append(numpy_helper.from_array(np.float32([2 + place, 3, -4]), "weight"))
        (folder / name / "1").mkdir(parents=True)
        onnx.save(model, folder / name / "1" / "model.onnx")
        segments[name] = Segment(name, (X,), (X,), (0, 0), "", 8)
    steps = (Step("first", ("x",), ("tap",)), Step("second", ("tap",), ("gates",)))
    return Repository(folder, segments, {"gates": Task("gates", steps, (X,), (TensorSpec("gates", "FP32", (3,)),), 8)})


def gate(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x * weight + weight if x.sum() > 0 else -x


@pytest.mark.parametrize("opsets", [(17, 17), (17, 18)])
def test_bodies_of_control_flow_and_opsets_that_differ_are_composed(tmp_path: Path, opsets: tuple[int, int]) -> None:
    networks = SeparateNetworks(write_gates(tmp_path, opsets), ["gates"], tmp_path, 1)
    ask = networks.one_after_another(["gates"])
    for row in ([1.0, 2.0, 3.0], [-1.0, -2.0, 0.5], [3.0, 0.0, 0.0]):
        x = np.float32([row])
        expected = gate(gate(x, np.float32([2, 3, -4])), np.float32([3, 3, -4]))
        np.testing.assert_allclose(ask({"x": x})["gates"], expected)
    networks.close()


def test_networks_answer_as_they_were_written_one_after_another_and_side_by_side(tmp_path: Path) -> None:
    """Several inputs, free lengths, tasks that take different inputs: all in one request."""
    repository = free_nets.write_free(tmp_path / "repository", (*free_nets.TEXT, *free_nets.TWINS))
    names = ["topic", "tag", "pair"]
    networks = SeparateNetworks(repository, names, tmp_path, 2)
    tokens = np.random.default_rng(1).integers(0, free_nets.VOCABULARY, (2, 2, 7))
    feed = {**free_nets.text(2, 5), "query": tokens[0], "document": tokens[1][:, :4]}
    side_by_side = networks.side_by_side(names)
    assert side_by_side is not None
    for ask in (networks.one_after_another(names), side_by_side):
        answers = ask(feed)
        assert list(answers) == names
        for name in names:
            np.testing.assert_allclose(answers[name], free_nets.whole(name, feed), rtol=1e-5, atol=1e-6)
    assert networks.side_by_side(["tag"]) is None
    assert networks.disk_bytes(names) > sum(weights.nbytes for weights in free_nets.weights("trunk").values())
    networks.close()


def test_answers_that_differ_are_said() -> None:
    right = {"y": np.float32([[1, 2, np.nan]]), "n": np.int64([1, 2])}
    assert differs("separate", right, right, 1e-3) == ""
    assert differs("separate", right, {**right, "y": np.float32([[1, 2.1, np.nan]])}, 1e-3) == (
        "y: separate and shared differ by 5.0e-02 of the largest number; their times do not compare."
    )
    assert differs("separate", right, {**right, "n": np.int64([1, 3])}, 1e-3).startswith(
        "n: separate and shared differ by 5.0e-01"
    )
    assert "differ by inf" in differs("separate", right, {**right, "n": np.int64([1])}, 1e-3)


def test_the_precision_of_a_segment_is_read_from_its_file(tmp_path: Path) -> None:
    def saved(name: str, operator: str, dtype: int) -> Path:
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
        weight = helper.make_tensor("w", dtype, [1], [1])
        model = helper.make_model(helper.make_graph([helper.make_node(operator, ["w"], ["y"])], "g", [], [y], [weight]))
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    assert segment_precision(saved("a", "Identity", TensorProto.FLOAT)) == "fp32"
    assert segment_precision(saved("b", "Cast", TensorProto.FLOAT16)) == "fp16"
    assert segment_precision(saved("c", "DequantizeLinear", TensorProto.INT8)) == "int8"
    assert segment_precision(saved("d", "Cast", TensorProto.INT64)) == "fp32"  # no weight that counts


def test_engines_are_found_by_words_and_those_that_are_missing_are_said() -> None:
    def never(*arguments: object) -> object:
        raise AssertionError

    first = EngineChoice("First", AS_EXPORTED, never)  # type: ignore[arg-type]
    half = EngineChoice("Second", "bf16", never)  # type: ignore[arg-type]
    absent = EngineChoice("Third", "fp32", never, lambda: "it is not installed")  # type: ignore[arg-type]
    every = (first, half, absent)
    assert find_engines((), every) == ([first, half], ["Third, fp32 is left out: it is not installed."])
    assert find_engines(("BF16",), every) == ([first, half], [])
    assert find_engines(("first",), every) == ([first], [])
    with pytest.raises(NoSuchEngine, match=r"No engine's name contains 'tpu'; there are First, as exported; Second, bf16; Third"):
        find_engines(("tpu",), every)


def test_engines_run_whole_networks_as_segments(tmp_path: Path) -> None:
    """Each task is one segment, whose answers and costs are those of its segments together."""
    repository = free_nets.write_free(tmp_path / "repository", ("topic", "pair"))
    whole = whole_networks(repository, ["topic", "pair"], tmp_path / "whole")
    assert [len(task.steps) for task in whole.tasks.values()] == [1, 1]
    assert {name: segment.macs for name, segment in whole.segments.items()} == {"whole-topic": 2000, "whole-pair": 3000}
    tokens = np.random.default_rng(1).integers(0, free_nets.VOCABULARY, (2, 2, 7))
    feed = {**free_nets.text(2, 5), "query": tokens[0], "document": tokens[1][:, :4]}

    async def ask() -> Answers:
        engine, plan = EmbeddedEngine(whole, threads=1), make_plan(whole, ["topic", "pair"])
        await engine.start()
        try:
            return await answer_of(engine, plan, feed)
        finally:
            await engine.aclose()

    answers = asyncio.run(ask())
    for name in ("topic", "pair"):
        np.testing.assert_allclose(answers[name], free_nets.whole(name, feed), rtol=1e-5, atol=1e-6)
