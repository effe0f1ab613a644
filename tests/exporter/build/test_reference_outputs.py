"""What an export records of a whole network's answer, and that its segments answer so wherever the version goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from contract.repository import Repository, Task, TensorSpec, read_repository
from contract.repository.record import OutputRecord
from contract.repository.sample import sample_inputs
from exporter.add import AddOptions, add_tasks
from exporter.build.reference_outputs import ReferenceOutputs, reference_outputs_of
from exporter.deploy import deploy, promote, rollback
from exporter.export import ExportOptions, export_repository
from exporter.gc import collect_garbage
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from exporter.sources.whole import WholeNetwork
from serving.engines.embedded import EmbeddedEngine
from serving.errors import WrongAnswer
from serving.parity import check_answers
from tests.exporter.graphs import Net
from tests.exporter.test_deploy import FIRST, SECOND, THIRD, sources
from tests.exporter.test_export import export
from tests.exporter.test_wirings import FROZEN, Make, plain, siamese, with_embedding, with_joint_end, with_metadata, with_numbers
from tests.exporter.test_wirings import export as export_wired

slow = pytest.mark.slow


def check(repository: Repository, tasks: Sequence[Task] = ()) -> None:
    """Have a real engine answer the recorded samples of `tasks`, by default of all."""

    async def run() -> None:
        engine = EmbeddedEngine(repository, threads=1)
        await engine.start()
        try:
            await check_answers(engine, repository, tasks or repository.tasks.values())
        finally:
            await engine.aclose()

    asyncio.run(run())


def records(task: Task) -> list[OutputRecord]:
    assert task.parity is not None
    return [record for record in task.parity.outputs if record is not None]


def answer(nodes: list[onnx.NodeProto], tmp_path: Path, dtype: int, weights: Sequence[np.ndarray] = ()) -> ReferenceOutputs:
    """What a network `y` of one input `x` of 40 numbers answers."""
    tensors = [numpy_helper.from_array(weight, f"w{index}") for index, weight in enumerate(weights)]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "net", [value("x", TensorProto.FLOAT, ["n", 40])], [value("y", dtype, ["n", 40])], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "whole.onnx")
    task = Task("t", (), (TensorSpec("image", "FP32", (40,)),), (TensorSpec("t", "FP32", (40,)),), 4)
    return reference_outputs_of(task, WholeNetwork(tmp_path / "whole.onnx", ("x",), ("y",)))


def test_a_record_is_the_first_row_and_how_much_the_output_varies(tmp_path: Path) -> None:
    found = answer([helper.make_node("Add", ["x", "w0"], ["y"])], tmp_path, TensorProto.FLOAT, [np.float32([5])])
    assert found.record is not None
    (record,) = found.record.outputs
    assert record is not None
    (x,) = sample_inputs((TensorSpec("image", "FP32", (40,)),), 4).values()
    np.testing.assert_allclose(record.values, x[0, np.arange(16) * 40 // 16] + 5, atol=1e-5 * record.scale)
    assert record.scale == pytest.approx(x.astype(np.float64).std(0).max(), rel=0.01)


def test_an_output_that_hardly_varies_is_measured_by_its_size(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "w0"], ["y"])
    found = answer([node], tmp_path, TensorProto.FLOAT, [np.float32([1e6])])
    assert found.record is not None
    assert found.record.outputs[0] is not None
    assert found.record.outputs[0].scale == pytest.approx(1e5, rel=0.01)
    zero = answer([helper.make_node("Mul", ["x", "w0"], ["y"])], tmp_path, TensorProto.FLOAT, [np.float32([0])])
    assert zero.record is not None
    assert zero.record.outputs == (OutputRecord((0.0,) * 16, 0.0),)


@pytest.mark.parametrize("kind", ["integers", "infinite"])
def test_what_cannot_be_compared_is_not_recorded(tmp_path: Path, kind: str) -> None:
    if kind == "integers":
        found = answer([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)], tmp_path, TensorProto.INT64)
    else:
        found = answer([helper.make_node("Div", ["x", "w0"], ["y"])], tmp_path, TensorProto.FLOAT, [np.float32([0])])
    assert found.record is None


@slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 99), min_size=1, max_size=3), st.integers(0, 99), st.integers(1, 40), st.integers(0, 99))
def test_every_exported_network_answers_its_own_sample_and_another_one_does_not(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[int], head: int, classes: int, stem: int
) -> None:
    nets = {"a": Net(blocks, head, classes, stem), "b": Net(blocks, head + 1, classes, stem)}
    repository = export(tmp_path_factory.mktemp("repo") / "r", nets, backbone=None).repository
    check(repository)
    a, b = (repository.tasks[name] for name in "ab")
    swapped = replace(a, parity=b.parity)
    with pytest.raises(WrongAnswer):
        check(replace(repository, tasks={**repository.tasks, "a": swapped}), [swapped])


@slow
def test_networks_with_several_inputs_and_outputs_answer_their_samples(tmp_path: Path) -> None:
    images: dict[str, Make] = {
        "twin": lambda: siamese({"b3": 33}, head=21),
        "both": lambda: with_embedding(22),
        "joint": lambda: with_joint_end(23),
    }
    repository = export_wired(tmp_path / "images", images).repository
    check(repository)
    assert [len(records(repository.tasks[name])) for name in images] == [1, 2, 2]
    for index, make in enumerate((with_metadata, with_numbers)):
        repository = export_wired(tmp_path / f"{index}", {"t": lambda make=make: make(24)}, None).repository  # type: ignore[misc]
        check(repository)
        assert len(records(repository.tasks["t"])) == len(repository.tasks["t"].outputs) == index + 1


@slow
def test_a_version_keeps_its_record_wherever_it_goes(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export(repo, {"probe": FIRST, "other": THIRD})

    def versions() -> list[tuple[OutputRecord, ...]]:
        repository = read_repository(repo)
        task = repository.tasks["probe"]
        for version in task.versions:
            check(repository, [replace(version, previous=None, canary=None)])
        return [tuple(records(version)) for version in task.versions]

    (first,) = versions()
    deploy(repo, sources(probe=SECOND), canary=0.5)
    assert len({first, (second := versions()[1])}) == 2
    promote(repo, "probe")
    assert versions() == [second, first]
    rollback(repo, "probe")
    assert versions() == [first, second]
    add_tasks(repo, sources(new=Net(blocks=(1, 2, 3, 41), head=77)), AddOptions(recut=True))  # segments are divided
    assert versions() == [first, second]
    collect_garbage(repo, drop_previous=True)
    assert versions() == [first]


@slow
def test_a_deployment_of_what_is_there_already_does_not_mind_the_last_digits_of_the_record(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export(repo, {"probe": FIRST})
    config = repo / "probe/config.pbtxt"
    (record,) = records(read_repository(repo).tasks["probe"])
    config.write_text(config.read_text().replace(repr(record.values[0]), repr(record.values[0] + 1e-6)))
    changed = config.read_bytes()
    deploy(repo, sources(probe=FIRST))
    assert config.read_bytes() == changed


def half(model: ir.Model) -> ir.Model:
    """The same network with its output shifted by 1 in float16."""
    (output,) = model.graph.outputs
    one = ir.Value(name="one", const_value=ir.tensor(np.float16([1]), name="one"))
    model.graph.register_initializer(one)
    rounded = ir.node("Cast", [output], {"to": ir.DataType.FLOAT16})
    shifted = ir.node("Add", [rounded.outputs[0], one])
    floats = ir.node("Cast", shifted.outputs, {"to": ir.DataType.FLOAT})
    return ends_in(model, [rounded, shifted, floats])


def quantised(model: ir.Model) -> ir.Model:
    """The same network with its output rounded to 8 bits, by a scale that follows from the batch."""
    rounded = ir.node("DynamicQuantizeLinear", model.graph.outputs, num_outputs=3)
    return ends_in(model, [rounded, ir.node("DequantizeLinear", rounded.outputs)])


def ends_in(model: ir.Model, nodes: Sequence[ir.Node]) -> ir.Model:
    (output,) = model.graph.outputs
    model.graph.extend(nodes)
    for index, value in enumerate(value for node in nodes for value in node.outputs):
        value.name = f"end{index}"
    result = nodes[-1].outputs[0]
    result.shape, result.type = output.shape, output.type
    model.graph.outputs[:] = [result]
    return model


@slow
@pytest.mark.parametrize(("change", "tolerance"), [(lambda model: model, 0.02), (half, 0.1), (quantised, 0.1)])
def test_networks_of_few_bits_are_compared_less_strictly(
    tmp_path: Path, change: Callable[[ir.Model], ir.Model], tolerance: float
) -> None:
    loaders = Sources({"t": lambda: TaskModel(change(plain(FROZEN, head=20)))})
    repository = export_repository(loaders, ExportOptions(tmp_path / "repo")).repository
    parity = repository.tasks["t"].parity
    assert parity is not None
    assert parity.tolerance == tolerance
    inputs = sample_inputs((TensorSpec("image", "FP32", (6,)),))  # one row: rounding may depend on the others in the batch
    (expected,) = open_session(change(plain(FROZEN, head=20))).run(None, inputs)
    np.testing.assert_allclose(records(repository.tasks["t"])[0].values, expected[0], atol=1e-4)
    check(repository)
