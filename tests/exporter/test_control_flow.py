"""Control flow is no reason to refuse a network: a Loop, a Scan or an If is an operator like any other, with what its bodies take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from contract.repository import Repository, read_repository
from exporter.add import AddOptions, add_tasks
from exporter.deploy import deploy
from exporter.errors import CoupledRows, ExportError, NotDeterministic, UnsupportedModel
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.graph.chain import Chain
from exporter.graph.difference import first_difference
from exporter.graph.network import Network, make_chain
from exporter.graph.passes.canonical import canonicalise
from exporter.sharing.choose import CutOptions
from exporter.sources.onnx_file import load_onnx
from exporter.sources.runtime import open_session
from exporter.sources.sandbox import canonical_form, try_in_sandbox
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.flow import FREE_SCAN, LOOP, SCAN, SEQUENCE, branches, network
from tests.exporter.test_recut import check_answers
from tests.exporter.test_wirings import answers

IF = branches("top = ReduceMax<keepdims = 0>(h) chosen = Greater(top, limit)")
LENGTHS = branches("s = Shape<start = 1, end = 2>(h) e = Squeeze(s) chosen = Greater(e, zero)")
CONSTANT = branches("chosen = Greater(limit, limit)")
ROWS = branches("s = Shape<start = 0, end = 1>(h) e = Squeeze(s) chosen = Greater(e, two)")
UNEQUAL = IF.replace("looped = If", "some = If").replace("MatMul(p, other)", "Concat<axis = 1>(p, h)") + (
    "back = Constant<value_ints = [1]>() most = ReduceMax(some, back) looped = Add(h, most)"
)
NON_ZERO = branches("n = NonZero(h) e = Size(n) chosen = Greater(e, zero)")
RANDOM = LOOP.replace("Tanh(sum)", "RandomNormalLike(sum)")
UNCOUNTED = LOOP.replace("loops = Constant<value = int64 {3}>()", "top = ReduceMax<keepdims = 0>(h) loops = Cast<to = 7>(top)")


def chain(middle: str = LOOP, **seeds: int) -> Chain:
    return make_chain("net", canonicalise(network(middle, **seeds)))


def operators(middle: str) -> list[str]:
    return [node.op_type.partition("_")[0] for node in canonicalise(network(middle)).graph]


def sources(tasks: Mapping[str, ir.Model]) -> Sources:
    return Sources({name: (lambda model=model: TaskModel(model.clone())) for name, model in tasks.items()})


def export(out: Path, tasks: Mapping[str, ir.Model], coupled: bool = False) -> ExportReport:
    return export_repository(sources(tasks), ExportOptions(out, cuts=CutOptions("exact"), coupled=coupled))


@pytest.mark.parametrize("middle", [LOOP, SCAN, IF, ROWS, SEQUENCE, NON_ZERO, UNEQUAL])
def test_the_canonical_form_answers_as_the_file_and_is_read_back_as_it_is(middle: str) -> None:
    model = network(middle)
    canonical = canonicalise(model.clone())
    onnx.checker.check_model(ir.to_proto(canonical))
    rows = np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)
    expected, found = (open_session(made).run(None, {"x": rows})[0] for made in (model, canonical))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    again = canonicalise(ir.from_proto(ir.to_proto(canonical)))
    assert ir.to_proto(again).functions == ir.to_proto(canonical).functions
    assert Network("net", again).digest() == Network("net", canonical).digest()


@pytest.mark.parametrize("middle", [LOOP, SCAN, IF])
def test_bodies_count_by_what_they_compute(middle: str) -> None:
    digests = [[block.digest for block in chain(middle, **seeds).blocks] for seeds in ({}, {"names": "_"}, {"inner": 20})]
    assert digests[0] == digests[1]
    assert [one == other for one, other in zip(digests[0], digests[2], strict=True)] == [True, False, True]
    structures = [[block.structure for block in chain(middle, inner=seed).blocks] for seed in (2, 20)]
    assert structures[0] == structures[1]
    other = middle.replace("Tanh", "Sin").replace("MatMul(p, other)", "Sin(p)")
    assert chain(middle).blocks[1].structure != chain(other).blocks[1].structure


def test_another_count_is_another_loop_and_the_difference_is_said() -> None:
    three, four = (Network("net", canonicalise(network(LOOP.replace("{3}", count)))) for count in ("{3}", "{4}"))
    assert three.chain().blocks[1].structure != four.chain().blocks[1].structure
    assert first_difference(three.part(), four.part()) == "Loop 'looped' with another body"


def test_weights_inside_of_a_body_are_those_outside() -> None:
    outside = network(LOOP)
    proto = ir.to_proto(outside)
    (inner,) = [tensor for tensor in proto.graph.initializer if tensor.name == "inner"]
    (loop,) = [node for node in proto.graph.node if node.op_type == "Loop"]
    loop.attribute[0].g.initializer.append(inner)
    proto.graph.initializer.remove(inner)
    inside = make_chain("net", canonicalise(ir.from_proto(proto)))
    assert [block.digest for block in inside.blocks] == [block.digest for block in chain(LOOP).blocks]
    assert [block.parameters for block in inside.blocks] == [64, 64, 24]


@pytest.mark.parametrize(
    ("middle", "macs", "uncounted"),
    [(LOOP, 3 * 64, ()), (SCAN, 4 * 16, ()), (IF, 2 * 64, ()), (UNCOUNTED, 64, ("Loop",))],
)
def test_macs_are_of_the_larger_branch_and_of_all_rounds(middle: str, macs: int, uncounted: tuple[str, ...]) -> None:
    block = chain(middle).blocks[1]
    assert block.macs == macs
    assert {"If", "Loop", "Scan"}.intersection(block.uncounted) == set(uncounted)
    assert {suspect.operator for suspect in block.suspects} & {"If", "Loop", "Scan"}


@pytest.mark.parametrize(("middle", "products"), [(LENGTHS, 3), (CONSTANT, 4)])
def test_an_if_on_a_constant_is_folded(middle: str, products: int) -> None:
    assert operators(middle).count("MatMul") == products
    assert "If" not in operators(middle)


def test_branches_of_different_shapes_meet_inside_of_a_segment() -> None:
    assert [block.outputs[0].shape for block in chain(UNEQUAL).blocks] == [(8,), (8,), (3,)]
    unequal = ir.to_proto(network(UNEQUAL))
    unequal.graph.node.append(onnx.helper.make_node("Softsign", ["some"], ["outside"]))
    unequal.graph.output.append(onnx.helper.make_tensor_value_info("outside", onnx.TensorProto.FLOAT, ["batch", "any"]))
    with pytest.raises(UnsupportedModel, match=r"no shape can be found behind If"):
        make_chain("net", canonicalise(ir.from_proto(unequal)))


def test_a_scan_goes_over_a_free_length() -> None:
    first, scan, head = make_chain("net", canonicalise(network(FREE_SCAN, row="length, 8"))).blocks
    assert (first.outputs[0].shape, scan.inputs[0].axes[0], scan.outputs[0].shape, head.outputs[0].shape) == (
        (-1, 8),
        "length",
        (8,),
        (3,),
    )
    assert scan.macs == first.macs == 128 * 64


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
@pytest.mark.parametrize("middle", [LOOP, SCAN, SEQUENCE])
def test_two_tasks_share_a_loop_and_what_is_before_it(middle: str, tmp_path: Path) -> None:
    tasks = {"one": network(middle, head=1), "two": network(middle, head=10), "other": network(middle, head=11, inner=20)}
    report = export(tmp_path / "repo", tasks)
    steps = {name: [step.segment for step in task.steps] for name, task in report.repository.tasks.items()}
    assert steps["one"][:-1] == steps["two"][:-1]
    assert steps["one"][0] == steps["other"][0]
    assert set(steps["one"][1:]).isdisjoint(steps["other"])
    assert sum(segment.macs for segment in report.repository.segments.values()) == 64 + 2 * chain(middle).blocks[1].macs + 3 * 24
    check_answers(report.repository, tasks)


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
def test_a_loop_is_added_deployed_cut_anew_and_served(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    tasks = {"one": network(head=1), "two": network(LOOP.replace("{3}", "{4}"), head=2)}
    trunk = export(repo, tasks).repository.tasks["one"].steps[0].segment
    tasks["three"] = network(head=3)
    added = add_tasks(repo, sources({"three": tasks["three"]}), AddOptions()).repository
    assert [added.tasks[name].steps[0].segment for name in tasks] == [trunk] * 3
    tasks["one"] = network(head=4)
    deploy(repo, sources({"one": tasks["one"]}))
    check_answers(read_repository(repo), tasks)
    again = add_tasks(repo, sources({}), AddOptions(recut=True)).repository
    assert again.tasks["one"].steps[-2].segment == again.tasks["three"].steps[-2].segment
    check_answers(again, tasks)
    check_served(again, tasks)


def check_served(repository: Repository, tasks: Mapping[str, ir.Model]) -> None:
    """Raise unless the embedded engine, which computes what is shared once, answers as the whole networks."""
    rows = np.random.default_rng(2).standard_normal((2, 8)).astype(np.float32)
    found, segments = answers(repository, list(tasks), {"image": rows})
    assert len(segments) == len(set(segments))
    for name, model in tasks.items():
        expected = open_session(model).run(None, {"x": rows})[0]
        np.testing.assert_allclose(found[repository.tasks[name].outputs[0].name], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
def test_an_if_on_the_data_of_all_rows_couples_them(tmp_path: Path) -> None:
    tasks = {"one": network(IF, head=1), "two": network(IF, head=2)}
    with pytest.raises(CoupledRows, match="ReduceMax"):
        export(tmp_path / "refused", tasks)
    assert not (tmp_path / "refused").exists()
    report = export(tmp_path / "repo", tasks, coupled=True)
    assert len({task.steps[0].segment for task in report.repository.tasks.values()}) == 1
    check_answers(report.repository, tasks)


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
def test_an_if_on_the_number_of_rows_is_found_by_a_run(tmp_path: Path) -> None:
    with pytest.raises(CoupledRows, match="If"):
        export(tmp_path / "repo", {"one": network(ROWS)})


@pytest.mark.slow
@pytest.mark.usefixtures("unsynced")
def test_what_is_random_in_a_body_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotDeterministic, match="Loop"):
        export(tmp_path / "repo", {"one": network(RANDOM)})


def one_row(middle: str, path: Path) -> Path:
    proto = ir.to_proto(network(middle))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(proto, path)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("forked_preflight")
def test_the_batch_around_a_body_is_made_free_but_not_in_it(tmp_path: Path) -> None:
    path = one_row(LOOP, tmp_path / "one.onnx")
    try_in_sandbox([path])  # which runs it
    freed = make_chain("net", canonical_form("net", load_onnx(path)))
    assert [block.digest for block in freed.blocks] == [block.digest for block in chain(LOOP).blocks]
    baked = LOOP.replace("sum =", "one_row = Constant<value_ints = [1, 8]>() back = Reshape(product, one_row) sum =")
    with pytest.raises(ExportError, match=r"the batch size is fixed to 1, and Loop"):
        try_in_sandbox([one_row(baked.replace("Add(product", "Add(back"), tmp_path / "baked.onnx")])


def test_an_if_on_a_weight_that_is_listed_as_an_input_is_folded(tmp_path: Path) -> None:
    proto = ir.to_proto(network(branches("")))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "chosen"))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("chosen", onnx.TensorProto.BOOL, []))
    onnx.save(proto, tmp_path / "net.onnx")
    model = canonicalise(load_onnx(tmp_path / "net.onnx"))
    assert [node.op_type for node in model.graph] == ["MatMul", "Relu", "MatMul", "Softsign", "MatMul"]


@pytest.mark.slow
def test_bodies_of_early_opsets_are_raised(tmp_path: Path) -> None:
    """What is out of order in the file, before a Loop whose body reads it, is sorted."""
    proto = ir.to_proto(network(LOOP, opset=13))
    nodes = [*proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    onnx.save(proto, tmp_path / "net.onnx")
    model = canonicalise(load_onnx(tmp_path / "net.onnx"))
    assert model.opset_imports[""] == 18
    assert [block.digest for block in make_chain("net", model).blocks] == [block.digest for block in chain(LOOP).blocks]
