"""Rows that affect each other are found at export: marked, refused by name, or taken with leave; others are independent, without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from contract.repository import Repository, TensorSpec, read_repository
from contract.repository.rows import RowsVerdict, judge_rows
from contract.repository.sample import sample_rows
from exporter.build.row_coupling import judge
from exporter.deploy import deploy, rollback
from exporter.errors import CoupledRows, ExportError, NotDeterministic, StaysInTraining
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.gc import collect_garbage
from exporter.graph.coupling import Suspect
from exporter.graph.network import make_chain
from exporter.graph.passes.canonical import canonicalise
from exporter.remove import remove_tasks
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from exporter.torch.export import NetworkExporter
from tests.espalier.test_cli import espalier
from tests.exporter.rowed import BY_ROW, IDLE, MIXING, QUANTISED, RANDOM, RETURNING, WIDTH, Node, network, node

pytestmark = pytest.mark.usefixtures("unsynced")


def sources(**models: ir.Model) -> Sources:
    return Sources({name: (lambda model=model: TaskModel(model.clone())) for name, model in models.items()})


def export(out: Path, model: ir.Model, *, coupled: bool = False) -> ExportReport:
    return export_repository(sources(t=model), ExportOptions(out, coupled=coupled))


def marks(repository: Repository) -> set[str]:
    return {segment.rows for segment in repository.segments.values()}


@pytest.mark.parametrize("operator", MIXING)
def test_an_operator_that_mixes_rows_is_refused_by_name(operator: str, tmp_path: Path) -> None:
    with pytest.raises(CoupledRows, match=rf"through (\w+, )?{operator}\b.*allow coupled rows"):
        export(tmp_path / "repo", MIXING[operator])
    assert not (tmp_path / "repo").exists()


def test_with_leave_it_is_marked_and_said(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", MIXING["Softmax"], coupled=True)
    assert marks(report.repository) == marks(read_repository(tmp_path / "repo")) == {"coupled"}
    assert len(report.row_remarks) == 1
    assert "through Softmax; one request is one run" in report.row_remarks[0]
    (segment,) = report.repository.segments
    assert "dynamic_batching" not in (tmp_path / "repo" / segment / "config.pbtxt").read_text()


@pytest.mark.parametrize("operator", RANDOM)
def test_noise_is_refused_by_name_whether_rows_may_affect_each_other_or_not(operator: str, tmp_path: Path) -> None:
    with pytest.raises(NotDeterministic, match=rf"another answer to the same input each time \({operator}\)"):
        export(tmp_path / "repo", RANDOM[operator], coupled=True)


@pytest.mark.parametrize("name", BY_ROW)
def test_no_wolf_is_cried(name: str, tmp_path: Path) -> None:
    report = export(tmp_path / "repo", BY_ROW[name])
    assert marks(report.repository) == {"independent"}
    assert report.row_remarks == ()


def test_dynamic_quantisation_is_marked_without_leave_and_said(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", QUANTISED)
    assert marks(report.repository) == {"coupled"}
    assert "through DynamicQuantizeLinear; one request is one run" in report.row_remarks[0]


def test_what_is_judged_by_runs_alone_is_said(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", RETURNING)
    assert marks(report.repository) == {"independent"}
    assert "judged by runs alone (Concat, Split)" in report.row_remarks[0]


def test_rows_that_meet_without_a_difference_are_marked_and_said(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", IDLE)
    assert marks(report.repository) == {"coupled"}
    assert "rows meet in ReduceMax, though no run gave another answer" in report.row_remarks[0]


def test_what_is_there_keeps_its_mark(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export_repository(sources(a=QUANTISED, b=BY_ROW["softmax of a row"]), ExportOptions(repo))
    (coupled,) = (name for name, segment in read_repository(repo).segments.items() if segment.rows == "coupled")
    deploy(repo, sources(b=BY_ROW["columns first"], c=MIXING["CumSum"]), coupled=True)
    rollback(repo, "b")
    remove_tasks(repo, ["c"])
    collect_garbage(repo)
    segments = read_repository(repo).segments
    assert segments[coupled].rows == "coupled"
    assert {segment.rows for segment in segments.values()} == {"coupled", "independent"}


def test_what_is_deployed_is_judged_too(tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    export(repo, BY_ROW["softmax of a row"])
    before = read_repository(repo)
    with pytest.raises(CoupledRows):
        deploy(repo, sources(t=MIXING["ReduceMean"]))
    assert read_repository(repo) == before


@pytest.mark.slow
@pytest.mark.usefixtures("forked_preflight")
def test_the_command_line_says_it_and_inspect_shows_it(tmp_path: Path) -> None:
    onnx.save(ir.to_proto(MIXING["Softmax"]), tmp_path / "t.onnx")
    repo = tmp_path / "repo"
    command = ["export", "--task", f"t={tmp_path / 't.onnx'}", "--out", str(repo)]
    refused, taken = espalier(*command), espalier(*command, "--coupled")
    assert (refused.returncode, taken.returncode) == (2, 0)
    assert "through Softmax" in " ".join(refused.stderr.split())
    assert "Rows: Segment t-00-00" in taken.stdout
    assert "Rows affect each other, so that one request is one run: t-00-00" in espalier("inspect", repo).stdout
    for config in repo.glob("*/config.pbtxt"):
        config.write_text(config.read_text().replace('"coupled"', '""'))
    assert "Never checked whether rows affect each other: t-00-00" in espalier("inspect", repo).stdout


def _step(*nodes: tuple[str, str, str, dict[str, int]]) -> Callable[[str, str], list[Node]]:
    """Return what makes a tensor y of a tensor x: nodes, each an operator, its inputs, its outputs and its attributes."""

    def named(text: str, x: str, y: str) -> list[str]:
        return [{"x": x, "y": y}.get(name, f"{y}_{name}" if name.isupper() else name) for name in text.split()]

    return lambda x, y: [node(op, named(given, x, y), named(made, x, y), **how) for op, given, made, how in nodes]


_STEPS = (
    _step(("Relu", "x", "y", {})),
    _step(("Softmax", "x", "y", {"axis": 1})),
    _step(("Softmax", "x", "y", {"axis": 0})),
    _step(("Transpose", "x", "A", {}), ("Softmax", "A", "B", {"axis": 0}), ("Transpose", "B", "y", {})),
    _step(("ReduceMax", "x one", "A", {"keepdims": 1}), ("Sub", "x A", "y", {})),
    _step(("ReduceMax", "x zero", "A", {"keepdims": 1}), ("Sub", "x A", "y", {})),
    _step(("Reshape", "x flat", "A", {}), ("Softmax", "A", "B", {"axis": 1}), ("Reshape", "B rows", "y", {})),
    _step(("DynamicQuantizeLinear", "x", "A B C", {}), ("DequantizeLinear", "A B C", "y", {})),
    _step(("Slice", "x zero last zero", "A", {}), ("Slice", "x last end zero", "B", {}), ("Concat", "B A", "y", {"axis": 0})),
)


@given(st.lists(st.sampled_from(_STEPS), min_size=1, max_size=3))
@settings(max_examples=40, deadline=None)
def test_what_is_called_independent_answers_alone_as_beside_others(makers: list[Callable[[str, str], list[Node]]]) -> None:
    model = canonicalise(_chained(makers))
    session, spec = open_session(model), TensorSpec("x", "FP32", (3, 4))
    suspects = [suspect for block in make_chain("t", model).blocks for suspect in block.suspects]
    verdict = judge_rows(lambda inputs: session.run(None, {"x": inputs[0]}), [sample_rows(spec, 4)])
    rows = np.random.default_rng(7).standard_normal((6, 3, 4)).astype(np.float32) * np.float32(
        [[[1]], [[9]], [[3]], [[50]], [[1]], [[2]]]
    )
    together = session.run(None, {"x": rows})[0]
    alone = np.concatenate([session.run(None, {"x": row[None]})[0] for row in rows])
    apart = np.abs(together - alone).max() > 1e-4 * np.abs(alone).max()
    try:
        found = judge("t", suspects, verdict).rows
    except CoupledRows:
        found = "coupled"
    assert found == "coupled" or not apart
    assert found == "independent" or suspects  # whatever is not, is so by an operator with a name


def _chained(makers: list[Callable[[str, str], list[Node]]]) -> ir.Model:
    nodes: list[Node] = []
    for index, maker in enumerate(makers):
        nodes += maker("l" if index == 0 else f"v{index - 1}", "o" if index == len(makers) - 1 else f"v{index}")
    numbers = {"zero": [0], "one": [1], "last": [-1], "end": [2**31], "flat": [-1, 1], "rows": [-1, WIDTH]}
    return network(nodes, **{name: np.array(values, np.int64) for name, values in numbers.items()})


def test_runs_decide_where_no_rule_knows_the_operator() -> None:
    unknown = [Suspect("com.acme.Blend", "unknown")]
    assert judge("s", unknown, RowsVerdict(0, 0, 0)).rows == "independent"
    with pytest.raises(CoupledRows, match=r"com\.acme\.Blend"):
        judge("s", unknown, RowsVerdict(1, 1, 0))
    with pytest.raises(NotDeterministic, match=r"com\.acme\.Blend"):
        judge("s", unknown, RowsVerdict(1, 1, 1), allowed=True)
    with pytest.raises(CoupledRows, match="no rule found"):
        judge("s", [], RowsVerdict(1, 1, 0))


def test_another_rounding_of_a_known_network_is_no_reason_to_refuse_it() -> None:
    assert judge("s", [], RowsVerdict(0.01, 0, 0)).rows == "independent"
    assert judge("s", [], RowsVerdict(0.5, 0, 0)).rows == "coupled"


class Stubborn(nn.Sequential):
    """A network whose normalisation does not hear eval()."""

    def train(self, mode: bool = True) -> Stubborn:
        super().train(mode)
        self[1].training = True
        return self


@pytest.mark.parametrize(
    ("network", "error", "words"),
    [
        (
            Stubborn(nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 3)),
            StaysInTraining,
            "'1' \\(BatchNorm1d\\) stays in training mode",
        ),
        (
            nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48, track_running_stats=False)),
            CoupledRows,
            "without running statistics in '1'",
        ),
    ],
)
@pytest.mark.slow
def test_torch_networks_that_normalise_by_the_batch(
    network: nn.Module, error: type[ExportError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        export(tmp_path / "repo", NetworkExporter(4, 4, "none").export(network, None))


class Noisy(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(image.flatten(1), training=True)


@pytest.mark.slow
def test_dropout_that_stays_on_is_refused_by_name() -> None:
    with pytest.raises(NotDeterministic, match="Dropout in training mode"):
        NetworkExporter(4, 4, "none").export(Noisy(), None)
