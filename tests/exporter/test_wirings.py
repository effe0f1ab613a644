"""Networks that are more than a chain: several inputs and outputs, and heads that take two taps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import tritonclient.http as http_client
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from contract.plan import make_plan
from contract.repository import Repository
from exporter.errors import BadTaskName, UnsupportedModel
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.graph.chain import Chain
from exporter.graph.network import make_chain
from exporter.graph.passes.canonical import canonicalise
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from serving.engines.embedded import EmbeddedEngine
from serving.server import BackgroundServer
from tests.exporter.wired import (
    FROZEN,
    WIDTH,
    Wired,
    plain,
    siamese,
    with_embedding,
    with_joint_end,
    with_metadata,
    with_numbers,
    with_side_head,
)

pytestmark = pytest.mark.slow

Make = Callable[[], ir.Model]
BACKBONE: Make = lambda: plain(FROZEN, head=9)  # noqa: E731


def export(out: Path, tasks: Mapping[str, Make], backbone: Make | None = BACKBONE) -> ExportReport:
    loaders = {name: (lambda make=make: TaskModel(make())) for name, make in tasks.items()}
    source = None if backbone is None else (lambda: TaskModel(backbone()))
    return export_repository(Sources(loaders, source), ExportOptions(out, cuts=CutOptions("exact")))


def answers(repository: Repository, names: list[str], inputs: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Ask the embedded engine; return the outputs and the segments that ran."""

    async def infer() -> tuple[dict[str, np.ndarray], list[str]]:
        engine = EmbeddedEngine(repository, threads=1)
        await engine.start()
        try:
            answer = await engine.infer(make_plan(repository, names), inputs)
        finally:
            await engine.aclose()
        return dict(answer.outputs), [run.segment for run in answer.runs]

    return asyncio.run(infer())


def whole(make: Make, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = open_session(make())
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, inputs), strict=True))


def rows(count: int, **sizes: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(count)
    return {name: random.standard_normal((count, size)).astype(np.float32) for name, size in (sizes or {"image": 6}).items()}


def chain(make: Make) -> Chain:
    return make_chain("net", canonicalise(make()))


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_siamese_head_takes_frozen_and_tuned_features_and_both_are_computed_once(tmp_path: Path, batch: int) -> None:
    tasks: dict[str, Make] = {
        "probe": lambda: plain(FROZEN, head=20),
        "twin": lambda: siamese({"b3": 33, "b4": 44}, head=21, prefix="x."),
        "other": lambda: siamese({"b3": 33, "b4": 45}, head=22),
    }
    report = export(tmp_path / "repo", tasks)
    assert report.plan.forks == {
        "probe": 4,
        "twin": 3,
        "other": 3,
    }  # both ways to `both` are one block of a Siamese one by itself
    inputs = rows(batch)
    found, ran = answers(report.repository, list(tasks), inputs)
    for name, make in tasks.items():
        np.testing.assert_allclose(found[name], whole(make, inputs)["logits" if name != "twin" else "x.logits"], atol=1e-5)
    assert len(ran) == len(set(ran))
    # Nothing is stored twice: four frozen blocks, b3 and two b4 of the Siamese ones, three heads.
    stored = sum(segment.parameters for segment in report.repository.segments.values())
    assert stored == 36 * (4 + 3) + 3 * 6 + 2 * 3 * 12


def test_a_siamese_head_is_found_without_a_backbone(tmp_path: Path) -> None:
    tasks: dict[str, Make] = {"probe": lambda: plain(FROZEN, head=20), "twin": lambda: siamese({"b3": 33, "b4": 44}, head=21)}
    report = export(tmp_path / "repo", tasks, backbone=None)
    assert report.plan.forks == {"probe": 4, "twin": 3}
    (head,) = [segment for segment in report.repository.segments.values() if len(segment.inputs) == 2]
    assert [spec.shape for spec in head.inputs] == [(6,), (6,)]


def test_the_order_of_the_tasks_does_not_matter_for_siamese_heads(tmp_path: Path) -> None:
    tasks: dict[str, Make] = {"probe": lambda: plain(FROZEN, head=20), "twin": lambda: siamese({"b3": 33, "b4": 44}, head=21)}
    forward = export(tmp_path / "one", tasks, backbone=None).repository
    backward = export(tmp_path / "two", dict(reversed(tasks.items())), backbone=None).repository
    assert forward.segments == backward.segments
    assert forward.tasks == backward.tasks


def test_an_output_inside_the_network_is_shared_and_does_not_need_the_head(tmp_path: Path) -> None:
    tasks: dict[str, Make] = {"embed": lambda: with_embedding(20), "probe": lambda: plain(FROZEN, head=21)}
    repository = export(tmp_path / "repo", tasks).repository
    assert [output.name for output in repository.tasks["embed"].outputs] == ["embed.logits", "embed.b4"]
    inputs = rows(3)
    found, ran = answers(repository, ["embed", "probe"], inputs)
    expected = whole(tasks["embed"], inputs)
    np.testing.assert_allclose(found["embed.b4"], expected["b4"], atol=1e-6)
    np.testing.assert_allclose(found["embed.logits"], expected["logits"], atol=1e-6)
    assert len([name for name in ran if name.startswith("trunk-00")]) == 1
    _, ran_alone = answers(repository, ["embed.b4"], inputs)
    heads = {step.segment for step in repository.tasks["embed"].steps if "embed.logits" in step.outputs}
    assert not heads & set(ran_alone)


def test_a_side_head_branches_off_the_trunk(tmp_path: Path) -> None:
    tasks: dict[str, Make] = {"two": lambda: with_side_head(20), "probe": lambda: plain(FROZEN, head=21)}
    report = export(tmp_path / "repo", tasks)
    assert report.plan.forks == {"two": 4, "probe": 4}
    inputs = rows(3)
    found, _ = answers(report.repository, ["two"], inputs)
    expected = whole(tasks["two"], inputs)
    np.testing.assert_allclose(found["two.side"], expected["side"], atol=1e-6)
    np.testing.assert_allclose(found["two.logits"], expected["logits"], atol=1e-6)
    _, ran = answers(report.repository, ["two.side"], inputs)
    assert sum(report.repository.segments[name].macs for name in ran) == 36 * 2 + 12


def test_outputs_that_take_the_same_tensor_are_told_apart(tmp_path: Path) -> None:
    blocks = chain(lambda: with_joint_end(20)).blocks
    assert {len(block.outputs) for block in blocks} == {1}
    tasks: dict[str, Make] = {"joint": lambda: with_joint_end(20), "probe": lambda: plain(FROZEN, head=21)}
    report = export(tmp_path / "repo", tasks)
    found, _ = answers(report.repository, ["joint", "probe"], rows(3))
    for name, value in whole(tasks["joint"], rows(3)).items():
        np.testing.assert_allclose(found[f"joint.{name}"], value, atol=1e-6)


def test_a_second_input_joins_where_it_is_used(tmp_path: Path) -> None:
    tasks: dict[str, Make] = {"one": lambda: with_metadata(20), "two": lambda: with_metadata(21)}
    report = export(tmp_path / "repo", tasks, backbone=None)
    assert report.plan.forks == {
        "one": 6,
        "two": 6,
    }  # four blocks, the one that takes in the age, and what puts both side by side
    (trunk,) = [segment for segment in report.repository.segments.values() if segment.name.startswith("trunk-00")]
    assert sorted(spec.shape for spec in trunk.inputs) == [(2,), (6,)]
    inputs = rows(3, image=6, age=2)
    found, ran = answers(report.repository, ["one", "two"], inputs)
    for name, make in tasks.items():
        np.testing.assert_allclose(found[name], whole(make, inputs)["logits"], atol=1e-6)
    assert len(ran) == 3


def test_a_server_takes_several_inputs_and_gives_several_outputs(tmp_path: Path) -> None:
    repository = export(tmp_path / "repo", {"one": lambda: with_metadata(20), "two": lambda: with_metadata(21)}, None).repository
    inputs = rows(3, image=6, age=2)
    with BackgroundServer(repository.path, http_port=0, grpc_port=0) as server:
        client = http_client.InferenceServerClient(f"127.0.0.1:{server.http_port}")
        assert [spec["name"] for spec in client.get_model_metadata("one")["inputs"]] == ["image", "age"]
        answer = client.infer("all_tasks", tensors(inputs))
        for name, make in (("one", lambda: with_metadata(20)), ("two", lambda: with_metadata(21))):
            np.testing.assert_allclose(answer.as_numpy(name), whole(make, inputs)["logits"], atol=1e-6)
        with pytest.raises(InferenceServerException, match="needs input 'age'"):
            client.infer("one", tensors({"image": inputs["image"]}))
        with pytest.raises(InferenceServerException, match=r"different numbers of rows \(3 in 'image', 2 in 'age'\)"):
            client.infer("one", tensors({"image": inputs["image"], "age": inputs["age"][:2]}))
        client.close()


def tensors(arrays: dict[str, np.ndarray]) -> list[http_client.InferInput]:
    made = []
    for name, array in arrays.items():
        made.append(http_client.InferInput(name, array.shape, "FP32"))
        made[-1].set_data_from_numpy(array)
    return made


def test_names_of_outputs_and_tasks_do_not_clash(tmp_path: Path) -> None:
    with pytest.raises(BadTaskName, match=r"embed\.b4"):
        export(tmp_path / "repo", {"embed": lambda: with_embedding(20), "embed.b4": BACKBONE})


def test_an_output_that_is_no_function_of_an_input_is_refused() -> None:
    model = plain(FROZEN, 1)
    model.graph.outputs.append(model.graph.inputs[0])
    with pytest.raises(UnsupportedModel, match="the output 'image' is not computed from an input"):
        make_chain("net", canonicalise(model))


def test_an_input_that_nothing_uses_is_left_out() -> None:
    model = plain(FROZEN, 1)
    model.graph.inputs.append(ir.Value(name="unused", shape=ir.Shape(["batch", 2]), type=ir.TensorType(ir.DataType.FLOAT)))
    assert [tap.name for tap in make_chain("net", canonicalise(model)).inputs] == ["image"]


def test_one_number_per_row_gets_an_axis_of_its_own(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", {"one": lambda: with_numbers(20), "two": lambda: with_numbers(21)}, backbone=None)
    task = report.repository.tasks["one"]
    assert {spec.name: spec.shape for spec in (*task.inputs, *task.outputs)} == {
        "image": (6,), "age": (2,), "site": (1,), "one.shifted": (3,), "one.total": (1,)
    }  # fmt: skip
    inputs = rows(3, image=6, age=2, site=1)
    found, _ = answers(report.repository, ["one"], inputs)
    expected = whole(lambda: with_numbers(20), {**inputs, "site": inputs["site"][:, 0]})
    np.testing.assert_allclose(found["one.shifted"], expected["shifted"], atol=1e-6)
    np.testing.assert_allclose(found["one.total"][:, 0], expected["total"], atol=1e-5)


def test_no_step_takes_what_is_an_output_of_the_repository(tmp_path: Path) -> None:
    # Triton's ensembles leave out a step whose outputs nobody requests, even where another step still needs them.
    tasks = {"embed": lambda: with_embedding(20), "side": lambda: with_side_head(21), "joint": lambda: with_joint_end(22)}
    repository = export(tmp_path / "repo", {**tasks, "probe": lambda: plain(FROZEN, head=23)}).repository
    outputs = {output.name for task in repository.tasks.values() for output in task.outputs}
    assert not outputs & {name for task in repository.tasks.values() for step in task.steps for name in step.inputs}


def test_a_task_named_like_an_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTaskName, match="'age' cannot name a task: the network has an input of that name"):
        export(tmp_path / "repo", {"age": lambda: with_metadata(20)}, backbone=None)


def test_ways_side_by_side_share_what_is_equal_in_each(tmp_path: Path) -> None:
    def two_ways(seed: int) -> ir.Model:
        net = Wired()
        net.add(net.layers("image", {"a": seed, "b": 2}), net.layers("image", {"c": 3, "d": 4}), "logits")
        return net.model("logits")

    tasks: dict[str, Make] = {"one": lambda: two_ways(1), "two": lambda: two_ways(10)}
    report = export(tmp_path / "repo", tasks, backbone=None)
    assert not report.remarks
    assert sum(segment.weight_bytes for segment in report.repository.segments.values()) == (2 + 3) * WIDTH * WIDTH * 4
    found, ran = answers(report.repository, ["one", "two"], rows(3))
    for name, make in tasks.items():
        np.testing.assert_allclose(found[name], whole(make, rows(3))["logits"], atol=1e-6)
    assert len(ran) == len(set(ran))


def test_twin_towers_are_two_streams_of_one_segment(tmp_path: Path) -> None:
    def towers(head: int) -> ir.Model:
        net = Wired({"left": WIDTH, "right": WIDTH})
        ends = []
        for side in ("left", "right"):
            source = side
            for index in range(3):
                source = net.layer(source, f"{side}.{index}", index + 1)
            ends.append(source)
        net.layer(net.concat(ends, "both"), "logits", head, 3)
        return net.model("logits")

    tasks: dict[str, Make] = {"one": lambda: towers(20), "two": lambda: towers(21)}
    repository = export(tmp_path / "repo", tasks, backbone=None).repository
    (tower,) = [segment for segment in repository.segments.values() if segment.weight_bytes == 3 * WIDTH * WIDTH * 4]
    (step,) = [step for step in make_plan(repository, ["one", "two"]).steps if step.segment == tower.name]
    assert len(step.inputs) == 2
    inputs = rows(3, left=6, right=6)
    found, _ = answers(repository, ["one", "two"], inputs)
    for name, make in tasks.items():
        np.testing.assert_allclose(found[name], whole(make, inputs)["logits"], atol=1e-6)


def turned(ends: Sequence[tuple[str, int]]) -> ir.Model:
    """A product whose rows come second, and heads that take it: what they share cannot cross."""
    random = np.random.default_rng
    weights = {"first": random(1), "inner": random(2), **{name: random(seed) for name, seed in ends}}
    tensors = [
        numpy_helper.from_array(made.standard_normal((WIDTH, WIDTH)).astype(np.float32), name) for name, made in weights.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["image", "first"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["b", "inner"], ["c"]),
    ]
    for name, _ in ends:
        nodes += [
            helper.make_node("MatMul", ["c", name], [f"{name}.turned"]),
            helper.make_node("Transpose", [f"{name}.turned"], [f"{name}.out"], perm=[1, 0, 2]),
        ]
    info = helper.make_tensor_value_info
    outputs = [info(f"{name}.out", TensorProto.FLOAT, ["batch", 4, WIDTH]) for name, _ in ends]
    graph = helper.make_graph(nodes, "turned", [info("image", TensorProto.FLOAT, ["batch", 4, WIDTH])], outputs, tensors)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


def test_what_is_computed_again_because_it_cannot_cross_is_said(tmp_path: Path) -> None:
    tasks: dict[str, Make] = {"one": lambda: turned([("left", 10)]), "two": lambda: turned([("left", 11), ("right", 12)])}
    report = export(tmp_path / "repo", tasks, backbone=None)
    assert "one" not in report.remarks  # each of its segments has it once
    assert "computes 144 MACs again in several segments" in report.remarks["two"]
    inputs = {"image": np.random.default_rng(0).standard_normal((3, 4, WIDTH)).astype(np.float32)}
    found, _ = answers(report.repository, ["one", "two"], inputs)
    expected = whole(tasks["two"], inputs)
    for name in ("left", "right"):
        np.testing.assert_allclose(found[f"two.{name}.out"], expected[f"{name}.out"], atol=1e-5)
