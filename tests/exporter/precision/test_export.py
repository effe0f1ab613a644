"""Exports in int8: one quantised trunk, branches behind it, what int8 costs too much left out, and what the repository says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from contract.repository import Repository, Task, read_repository
from contract.repository.model import FP32_FOLDER
from contract.repository.rows import largest_error
from exporter.add import AddOptions, add_tasks
from exporter.build.parity import ParityChecker
from exporter.deploy import deploy, rollback
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.gc import collect_garbage
from exporter.precision.errors import CannotQuantise, DamagedInt8, NeedsPrecision
from exporter.precision.examples import Examples, PrecisionOptions
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from tests.contract.repository.states import state
from tests.exporter.precision.nets import fine, images, in_int8, loud, plain, rows, sources
from tests.exporter.wired import FROZEN, WIDTH
from tests.exporter.wired import plain as wired

pytest.importorskip("nncf", reason="networks are quantised by the extra `quantize`")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]  # the library takes seconds to import

ROWS = images(6, seed=9)


def export(out: Path, coming: Sources, precision: PrecisionOptions | None = None) -> ExportReport:
    options = ExportOptions(out, cuts=CutOptions("exact"), precision=precision or in_int8())
    return export_repository(coming, options)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    family = sources(plain=plain(), loud=loud(), fine=fine())
    return export(tmp_path_factory.mktemp("family") / "repo", family)


@pytest.fixture
def repo(tmp_path: Path, report: ExportReport) -> Path:
    copytree(report.repository.path, tmp_path / "repo")
    return tmp_path / "repo"


def precisions(repository: Repository, task: str) -> list[str]:
    return [repository.segments[step.segment].precision for step in repository.tasks[task].steps]


def answer(repository: Repository, task: Task, given: np.ndarray = ROWS) -> np.ndarray:
    return np.asarray(ParityChecker(replace(repository, tasks={"it": task})).compose("it", [given])[0])


def expected(model: onnx.ModelProto) -> np.ndarray:
    return np.asarray(open_session(ir.from_proto(model)).run(None, {"image": ROWS})[0])


def test_what_int8_costs_too_much_is_tried_with_its_branch_in_fp32_and_then_left_out(report: ExportReport) -> None:
    assert report.precision is not None
    verdicts = {verdict.task: verdict for verdict in report.precision.verdicts}
    assert {name: verdict.variant for name, verdict in verdicts.items()} == {
        "plain": "int8",
        "loud": "int8, branch in fp32",
        "fine": "fp32",
    }
    assert [trial.variant for trial in verdicts["fine"].trials] == ["int8", "int8, branch in fp32"]
    assert verdicts["plain"].reason == ""
    assert verdicts["loud"].reason.startswith("in int8 it answers otherwise in ")
    assert ", with its branch in fp32 it answers otherwise in " in verdicts["fine"].reason
    assert verdicts["plain"].judged_by == "agreement with fp32 (nobody knows what they show)"
    assert report.precision.remarks == ("24 rows, and 200 others.",)
    repository = report.repository
    assert precisions(repository, "plain") == ["int8", "int8"]
    assert precisions(repository, "loud") == ["int8", "fp32"]
    assert precisions(repository, "fine") == ["fp32", "fp32"]
    assert repository == read_repository(repository.path)


def test_the_trunk_is_quantised_once(report: ExportReport) -> None:
    tasks = report.repository.tasks
    assert tasks["plain"].steps[0] == tasks["loud"].steps[0]
    trunk = report.repository.segments[tasks["plain"].steps[0].segment]
    assert trunk.stands_for == tasks["fine"].steps[0].segment
    assert report.precision is not None
    sharing = report.precision.sharing
    assert sharing.startswith("1 of the segments is there in fp32 (for fine) and in int8 (for ")
    assert "kMACs more" in sharing


def test_values_of_either_precision_have_names_of_their_own(report: ExportReport) -> None:
    taps = {name: task.steps[0].outputs for name, task in report.repository.tasks.items()}
    assert taps["plain"] == taps["loud"] != taps["fine"]


def test_answers_in_int8_are_near_those_in_fp32_and_those_in_fp32_are_equal(report: ExportReport) -> None:
    repository = report.repository
    np.testing.assert_allclose(answer(repository, repository.tasks["fine"]), expected(fine()), rtol=1e-5)
    found, wanted = answer(repository, repository.tasks["plain"]), expected(plain())
    assert 0 < largest_error([found], [wanted]) < 0.3


def test_what_is_recorded_are_the_quantised_answers(report: ExportReport) -> None:
    repository = report.repository
    for name, task in repository.tasks.items():
        checker = ParityChecker(repository)
        found = checker.compose(name, [values[:1] for values in checker.sample(name)])[0]
        assert task.parity is not None
        (record,) = task.parity.outputs
        assert record is not None
        np.testing.assert_allclose(found[0], record.values, atol=1e-4 * record.scale)
        assert task.parity.tolerance == (0.02 if name == "fine" else 0.1)


def test_models_are_named_by_their_content_and_lie_beside_what_they_stand_for(report: ExportReport) -> None:
    repository = report.repository
    for segment in (one for one in repository.segments.values() if one.stands_for):
        model = onnx.load(repository.model_file(segment.name))
        assert {node.op_type for node in model.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
        assert (model.ir_version <= 10, model.opset_import[0].version <= 21, len(model.metadata_props)) == (True, True, 0)
        assert {weight.data_type for weight in model.graph.initializer} >= {TensorProto.INT8}
        there = repository.path / segment.name / FP32_FOLDER
        assert sorted(entry.name for entry in there.iterdir()) == ["1", "config.pbtxt"]
        assert segment.name.rpartition("-")[0] == segment.stands_for.rpartition("-")[0]
        assert segment.weight_bytes < sum(
            len(weight.raw_data) for weight in onnx.load(repository.network_file(segment.name)).graph.initializer
        )


def test_exports_are_the_same_each_time(tmp_path: Path) -> None:
    names = [sorted(export(tmp_path / out, sources(plain=plain())).repository.segments) for out in ("one", "other")]
    assert names[0] == names[1]


def test_accuracy_is_what_counts_where_the_labels_are_known(tmp_path: Path) -> None:
    right = np.asarray(open_session(ir.from_proto(plain())).run(None, {"image": rows().judge})[0]).argmax(axis=1)
    right[:50] = (right[:50] + 1) % 3

    def labelled(task: Task) -> Examples:
        return Examples(rows(), right)

    report = export(tmp_path / "repo", sources(plain=plain()), PrecisionOptions("int8", labelled, 0.05)).precision
    assert report is not None
    (verdict,) = report.verdicts
    assert (verdict.measure, verdict.fp32, verdict.variant) == ("accuracy", 0.75, "int8")
    assert verdict.trials[0].accuracy == pytest.approx(0.75, abs=0.05)


# What comes later.


def test_a_task_that_comes_without_a_word_is_refused_where_it_would_share_what_is_in_int8(repo: Path) -> None:
    before = state(repo)
    with pytest.raises(NeedsPrecision, match=r"'new' would share trunk-.* with tasks that .* has in int8"):
        add_tasks(repo, sources(new=plain(2)), AddOptions())
    assert state(repo) == before


def test_a_task_that_comes_in_int8_is_calibrated_behind_the_trunk_that_is_there(repo: Path) -> None:
    before = state(repo)
    added = add_tasks(repo, sources(new=plain(2)), AddOptions(precision=in_int8()))
    assert [name for name in added.new if name.startswith("trunk")] == []
    assert precisions(added.repository, "new") == ["int8", "int8"]
    assert added.repository.tasks["new"].steps[0] == added.repository.tasks["plain"].steps[0]
    after = state(repo)
    assert {path: after[path] for path in before if not str(path).startswith("all_tasks")} == {
        path: content for path, content in before.items() if not str(path).startswith("all_tasks")
    }
    assert added.precision is not None
    assert [verdict.task for verdict in added.precision.verdicts] == ["new"]


def test_a_task_that_comes_in_fp32_has_the_trunk_in_fp32(repo: Path) -> None:
    added = add_tasks(repo, sources(new=plain(2)), AddOptions(precision=PrecisionOptions("fp32")))
    assert precisions(added.repository, "new") == ["fp32", "fp32"]
    assert added.repository.tasks["new"].steps[0] == added.repository.tasks["fine"].steps[0]
    np.testing.assert_allclose(answer(added.repository, added.repository.tasks["new"]), expected(plain(2)), rtol=1e-5)


def test_deploying_keeps_the_version_in_int8_and_rolling_back_returns_to_it(repo: Path) -> None:
    old = read_repository(repo).tasks["plain"]
    deploy(repo, sources(plain=plain(2)), precision=in_int8())
    now = read_repository(repo)
    assert precisions(now, "plain") == ["int8", "int8"]
    kept = now.tasks["plain"].previous
    assert kept is not None
    assert (kept.steps, kept.parity) == (old.steps, old.parity)
    rollback(repo, "plain")
    back = read_repository(repo)
    assert back.tasks["plain"].steps == old.steps
    deploy(repo, sources(plain=plain(3)), precision=PrecisionOptions("fp32"))  # what rolling back left can be added to
    collect_garbage(repo, drop_previous=True)
    last = read_repository(repo)
    assert precisions(last, "plain") == ["fp32", "fp32"]
    np.testing.assert_allclose(answer(last, last.tasks["plain"]), expected(plain(3)), rtol=1e-5)


def test_deploying_what_is_there_changes_nothing(repo: Path) -> None:
    before = state(repo)
    deploy(repo, sources(plain=plain()))
    assert state(repo) == before


def test_all_tasks_are_decided_upon_anew_when_all_is_cut_anew(repo: Path) -> None:
    with pytest.raises(NeedsPrecision):
        add_tasks(repo, wired_apart(), AddOptions(recut=True, cuts=CutOptions("stages")))
    bare = add_tasks(repo, Sources({}), AddOptions(recut=True, precision=PrecisionOptions("fp32"))).repository
    assert {precision for name in bare.tasks for precision in precisions(bare, name)} == {"fp32"}
    for name, model in {"plain": plain(), "loud": loud(), "fine": fine()}.items():
        np.testing.assert_allclose(answer(bare, bare.tasks[name]), expected(model), rtol=1e-4)
    collect_garbage(repo)
    assert not any(segment.stands_for for segment in read_repository(repo).segments.values())
    again = add_tasks(repo, Sources({}), AddOptions(recut=True, precision=in_int8())).repository
    assert (precisions(again, "plain"), precisions(again, "fine")) == (["int8", "int8"], ["fp32", "fp32"])


def wired_apart() -> Sources:
    return sources(new=plain(2))


def test_a_damaged_model_in_int8_is_found(repo: Path) -> None:
    repository = read_repository(repo)
    file = repository.model_file(repository.tasks["plain"].steps[0].segment)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink()
    file.write_bytes(content)
    with pytest.raises(DamagedInt8, match="its model is not the one that was named so"):
        add_tasks(repo, sources(new=plain(2)), AddOptions(precision=in_int8()))


# What is refused.


def test_rows_of_numbers_may_be_in_int8_too(tmp_path: Path) -> None:
    coming = Sources({"it": lambda: TaskModel(wired(FROZEN, head=1))})
    rng = np.random.default_rng(0)
    calibrate, judge = (rng.normal(size=(count, WIDTH)).astype(np.float32) for count in (20, 30))
    given = replace(rows(), calibrate=calibrate, judge=judge)
    options = PrecisionOptions("int8", lambda task: Examples(given, unlabelled="none"), 0.9)
    report = export(tmp_path / "repo", coming, options)
    assert set(precisions(report.repository, "it")) == {"int8"}


def test_free_sizes_and_several_inputs_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    for make, reason in ((free, "takes free sizes (height)"), (pair, "takes several inputs (left, right)")):
        with pytest.raises(CannotQuantise, match="cannot be in int8: it takes") as raised:
            export(tmp_path / "repo", Sources({"it": lambda make=make: TaskModel(make())}))
        assert reason in str(raised.value)
    assert not (tmp_path / "repo").exists()


def free() -> ir.Model:
    return network("height", ["left"])


def pair() -> ir.Model:
    return network(5, ["left", "right"])


def network(height: int | str, names: Sequence[str]) -> ir.Model:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2, height, 5]) for name in names]
    weight = helper.make_tensor("w", TensorProto.FLOAT, (3, 2, 3, 3), np.random.default_rng(0).normal(size=54).astype(np.float32))
    nodes = [helper.make_node("Conv", [name, "w"], [f"{name}.c"]) for name in names]
    nodes += [
        helper.make_node("Sum", [f"{name}.c" for name in names], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["p"]),
    ]
    nodes += [helper.make_node("Flatten", ["p"], ["o"])]
    output = helper.make_tensor_value_info("o", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph(nodes, "net", values, [output], [weight])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
