"""Networks of text whose length is free: it stays free in what is exported, whatever exporter wrote them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contract.repository import Repository, read_repository
from contract.repository.free_sizes import FreeSize
from exporter.add import AddOptions, add_tasks
from exporter.build.parity import ParityChecker
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.open_models import open_sources
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.bert import LENGTH, WORDS, Bert
from tests.exporter.exported import NEW, OLD, network
from tests.exporter.exported import export as write

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced", "forked_preflight", "small_sizes")]
EXACT = CutOptions("exact")


def sources(**tasks: Bert) -> Sources:
    return Sources({name: (lambda bert=bert: TaskModel(bert.model())) for name, bert in tasks.items()})


def export(out: Path, **tasks: Bert) -> ExportReport:
    return export_repository(sources(**tasks), ExportOptions(out, cuts=EXACT))


def free(layers: tuple[int, ...] = (10, 20, 30), head: int = 90, *, tokens: bool = False, length: str = "length") -> Bert:
    return Bert(layers, head, masked=True, length=length, tokens=tokens)


def check_answers(repo: Path, wholes: dict[str, object]) -> None:
    """Every length is answered by the segments as by the whole network: there is none at which something was left as it was."""
    checker, random = ParityChecker(read_repository(repo)), np.random.default_rng(1)
    for name, whole in wholes.items():
        session = open_session(whole)
        for length in range(1, LENGTH + 1):
            given = {
                value.name: random.integers(0, WORDS if value.name == "input_ids" else 2, (3, length))
                for value in session.get_inputs()
            }
            found = checker.compose(name, [*given.values()])
            np.testing.assert_allclose(found[0], session.run(None, given)[0], atol=1e-5)


def free_axes(repository: Repository) -> set[str]:
    models = [*repository.segments.values(), *repository.tasks.values()]
    return {name for model in models for spec in (*model.inputs, *model.outputs) for name in spec.axes if name}


def test_a_bert_of_any_length_shares_its_first_layers_however_it_was_written(tmp_path: Path) -> None:
    length = "sequence_length"
    files = {how: write(network("bert", tuned=how == OLD), how, tmp_path / f"{how}.onnx", length) for how in (OLD, NEW)}
    opened = open_sources(None, files)
    assert (
        len([line for line in opened.remarks if "leaves 'sequence_length' free (1 to 6); costs are stated for 6." in line]) == 2
    )
    report = export_repository(opened, ExportOptions(tmp_path / "repo", cuts=EXACT))
    assert report.plan.forks == {OLD: 20, NEW: 20}
    assert len(report.plan.segments) == 3  # a trunk, and behind it one each
    check_answers(tmp_path / "repo", dict(files))


def test_free_axes_are_written_as_such_everywhere(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", a=free(), b=free((10, 20, 40), 91, tokens=True))
    repository = read_repository(tmp_path / "repo")
    assert free_axes(repository) == {"length"}
    for model in (*repository.segments.values(), *repository.tasks.values()):
        assert model.sizes == {"length": FreeSize(LENGTH, 1, LENGTH)}
    assert [spec.shape for spec in repository.tasks["a"].inputs] == [(-1,)] * 3
    assert repository.tasks["b"].outputs[0].axes == ("length", "")
    assert repository.tasks["b"].values == {"input_ids": (0, WORDS - 1), "token_type_ids": (0, 1)}
    for name in report.plan.segments:
        session = open_session(repository.model_file(name))
        assert all(value.shape[:2] == ["batch", "length"] for value in session.get_inputs())
    config = (tmp_path / "repo" / "a" / "config.pbtxt").read_text()
    assert "dims: -1" in config
    check_answers(tmp_path / "repo", {"a": free().model(), "b": free((10, 20, 40), 91, tokens=True).model()})


def test_tasks_that_call_it_otherwise_share_all_the_same(tmp_path: Path) -> None:
    export(tmp_path / "repo", a=free(), b=free((10, 20, 40), 91, length="sequence_length"))
    repository = read_repository(tmp_path / "repo")
    (first, _), (other, _) = (repository.tasks[name].steps for name in ("a", "b"))
    assert first.segment == other.segment
    check_answers(tmp_path / "repo", {"b": free((10, 20, 40), 91, length="n").model()})


def test_a_task_that_is_added_uses_what_is_there(tmp_path: Path) -> None:
    export(tmp_path / "repo", a=free(), b=free((10, 20, 40), 91))
    report = add_tasks(tmp_path / "repo", sources(c=free((10, 20, 50), 92, tokens=True)), AddOptions())
    assert len(report.new) == 1
    assert not report.missed["c"].macs
    add_tasks(tmp_path / "repo", Sources({}), AddOptions(recut=True))
    wholes = {"a": free(), "b": free((10, 20, 40), 91), "c": free((10, 20, 50), 92, tokens=True)}
    check_answers(tmp_path / "repo", {name: bert.model() for name, bert in wholes.items()})


def test_of_a_fixed_length_beside_a_free_one_it_is_said_that_they_take_other_inputs(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", a=free(), b=Bert(masked=True))
    assert "takes its input 'input_ids' as 'input_ids_int64_5'" in report.remarks["b"]
    assert not report.plan.forks["b"]
    check_answers(tmp_path / "repo", {"a": free().model()})
