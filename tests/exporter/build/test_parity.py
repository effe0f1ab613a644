"""An export compares what it wrote with what it was given: what its own rewriting gets wrong comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporter.add import AddOptions, add_tasks
from exporter.build.parity import Compared, check_error
from exporter.errors import AnotherForm, BadModel, ParityError
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.open_models import open_sources
from exporter.sharing.choose import CutOptions
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.graphs import Net
from tests.exporter.wrong_passes import Pass, rewritten_by, scaled, with_fewer_classes, without_a_relu

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_preflight")]


@pytest.mark.parametrize("given", ["file", "memory"])
@pytest.mark.parametrize(
    ("wrong", "error"), [(scaled, ParityError), (without_a_relu, ParityError), (with_fewer_classes, AnotherForm)]
)
def test_a_pass_that_computes_something_else_fails_the_export(
    tmp_path: Path, wrong: Pass, error: type[Exception], given: str
) -> None:
    file = Net().save(tmp_path / "net.onnx")
    sources = open_sources(None, {"t": file}) if given == "file" else Sources({"t": lambda: TaskModel(Net().model())})
    assert export_repository(sources, ExportOptions(tmp_path / "repo")).remarks == {}
    with rewritten_by(wrong), pytest.raises(error, match="nothing was written"):
        export_repository(sources, ExportOptions(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    with rewritten_by(wrong), pytest.raises(error):
        add_tasks(tmp_path / "repo", Sources({"u": sources.tasks["t"]}), AddOptions())


def test_a_network_is_compared_as_it_lies_with_its_weights_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    onnx.save(Net().proto(), file, save_as_external_data=True, location="weights", size_threshold=0)
    report = export_repository(open_sources(None, {"t": file}), ExportOptions(tmp_path / "repo"))
    assert report.parity_errors["t"] < 1e-5
    assert report.remarks == {}
    with rewritten_by(scaled), pytest.raises(ParityError):
        export_repository(open_sources(None, {"t": file}), ExportOptions(tmp_path / "other"))


def test_what_cannot_be_run_as_it_was_given_is_compared_in_canonical_form_and_said(tmp_path: Path) -> None:
    proto = Net().proto()
    proto.opset_import.append(helper.make_opsetid("com.acme", 1))
    proto.graph.node.append(helper.make_node("Unheard", ["logits"], ["unused"], domain="com.acme"))
    onnx.save(proto, tmp_path / "net.onnx")
    report = export_repository(open_sources(None, {"t": tmp_path / "net.onnx"}), ExportOptions(tmp_path / "repo"))
    assert report.remarks["t"].startswith(
        "was compared with its canonical form, and not as it was given: ONNX Runtime cannot run the model ("
    )
    assert "Unheard" in report.remarks["t"]


def test_two_networks_that_cannot_be_run_as_they_were_given_are_each_compared_with_their_own(tmp_path: Path) -> None:
    def unheard(gamma: float) -> TaskModel:
        model = nearly_constant(3_000, (gamma, gamma))
        model.opset_imports["com.acme"] = 1
        model.graph.append(ir.node("Unheard", model.graph.outputs, domain="com.acme"))
        return TaskModel(model)

    tasks = {"one": lambda: unheard(1), "two": lambda: unheard(2)}
    report = export_repository(Sources(tasks), ExportOptions(tmp_path / "repo", cuts=CutOptions("exact")))
    for remark in report.remarks.values():
        assert "was compared with its canonical form" in remark
        assert "It differs from the whole network in canonical form by" in remark


@pytest.mark.parametrize("change", [Path.unlink, lambda file: Net(head=1).save(file)])
def test_a_file_that_is_changed_meanwhile_is_refused(tmp_path: Path, change: Callable[[Path], object]) -> None:
    file = Net().save(tmp_path / "net.onnx")

    def progress(what: str, done: int, total: int) -> None:
        if (what, done) == ("Running whole networks", 0):
            change(file)

    with pytest.raises(BadModel, match=r"net.onnx: was changed or deleted while it was being exported"):
        export_repository(open_sources(None, {"t": file}), ExportOptions(tmp_path / "repo"), progress)


def nearly_constant(offset: float, gamma: Sequence[float] = (1, 1)) -> ir.Model:
    """A normalisation takes away again what a convolution adds: where one session has both, ONNX Runtime leaves out both."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.standard_normal((2, 1, 3, 3)) / 100,
        "bias": np.full(2, offset),
        "gamma": np.reshape(gamma, (1, 2, 1, 1)),
        "beta": -offset * np.reshape(gamma, (1, 2, 1, 1)),
        "head": rng.standard_normal((2, 3)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernel", "bias"], ["sums"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["sums", "gamma"], ["scaled"]),
        helper.make_node("Add", ["scaled", "beta"], ["normal"]),
        helper.make_node("Relu", ["normal"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 6, 6])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    tensors = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "net", [image], [logits], tensors)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


def export_nearly_constant(out: Path, offset: float) -> ExportReport:
    """Two tasks that differ in the normalisation alone, so that a cut is in front of it."""
    gammas = {"one": (1, 1), "two": (2, 2)}
    tasks = {name: (lambda gamma=gamma: TaskModel(nearly_constant(offset, gamma))) for name, gamma in gammas.items()}
    return export_repository(Sources(tasks), ExportOptions(out, cuts=CutOptions("exact")))  # type: ignore[arg-type]


def test_a_network_may_differ_as_much_as_it_does_from_itself(tmp_path: Path) -> None:
    report = export_nearly_constant(tmp_path / "repo", 3_000)
    assert 1e-4 < report.parity_errors["one"] < 1e-2
    assert "which is taken for rounding: ONNX Runtime's optimisations alone make a difference of" in report.remarks["one"]
    again = add_tasks(tmp_path / "repo", Sources({}), AddOptions(recut=True, cuts=CutOptions("cheap", max_segments=2)))
    assert again.parity_errors.keys() == {"one", "two"}
    assert "differs from the segments until now" in again.remarks["one"]


def test_a_wrong_pass_is_no_rounding(tmp_path: Path) -> None:
    words = r"from the whole network as it was given by \S+e-02 .* alone make a difference of \S+e-04 \("
    with rewritten_by(scaled), pytest.raises(ParityError, match=words):
        export_nearly_constant(tmp_path / "repo", 3_000)


def test_what_is_noise_for_the_most_part_proves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match=r"allowed: 1e-04, or twice the latter up to 0.02"):
        export_nearly_constant(tmp_path / "repo", 1_000_000)


@pytest.mark.parametrize(
    ("error", "noise", "allowed"),
    [
        (9e-5, None, True),
        (3e-4, 1.6e-4, True),
        (3e-4, 1.4e-4, False),
        (3e-4, None, False),
        (np.inf, np.inf, False),
        (np.nan, np.nan, False),
        (3e-4, np.nan, False),
        (0.03, 0.03, False),
    ],
)
def test_twice_the_noise_is_allowed(tmp_path: Path, error: float, noise: float | None, allowed: bool) -> None:
    repository = export_repository(Sources({"t": lambda: TaskModel(Net().model())}), ExportOptions(tmp_path / "repo")).repository
    compared = Compared("the other", lambda: noise)
    if allowed:
        assert bool(check_error(repository, "t", error, 1e-4, compared)) == (error > 1e-4)
        return
    with pytest.raises(ParityError, match="are needed" if noise is None else f"alone make a difference of {noise:.2e}"):
        check_error(repository, "t", error, 1e-4, compared)
