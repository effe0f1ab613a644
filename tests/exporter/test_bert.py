"""Networks of text: ids, token types and a mask come in side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contract.repository import read_repository
from exporter.add import AddOptions, add_tasks
from exporter.build.parity import ParityChecker
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.sharing.choose import CutOptions
from exporter.sources.runtime import open_session
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.bert import LENGTH, WORDS, Bert

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unsynced")]

FIRST, SECOND = Bert((10, 20, 30), 90), Bert((10, 20, 40), 91)


def sources(**tasks: Bert) -> Sources:
    return Sources({name: (lambda bert=bert: TaskModel(bert.model())) for name, bert in tasks.items()})


def export(out: Path, **tasks: Bert) -> ExportReport:
    return export_repository(sources(**tasks), ExportOptions(out, cuts=CutOptions("exact")))


def check_answers(repo: Path, **tasks: Bert) -> None:
    checker, random = ParityChecker(read_repository(repo)), np.random.default_rng(1)
    for name, bert in tasks.items():
        session = open_session(bert.model())
        given = {
            value.name: random.integers(0, WORDS if value.name == "input_ids" else 2, (4, LENGTH))
            for value in session.get_inputs()
        }
        np.testing.assert_allclose(checker.compose(name, [*given.values()])[0], session.run(None, given)[0], atol=1e-5)


def test_a_bert_with_token_types_shares_its_first_layers(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", a=FIRST, b=SECOND)
    assert report.plan.forks == {"a": 5, "b": 5}
    check_answers(tmp_path / "repo", a=FIRST, b=SECOND)
    add_tasks(tmp_path / "repo", sources(c=Bert((10, 20, 30), 92)), AddOptions())
    check_answers(tmp_path / "repo", a=FIRST, b=SECOND, c=Bert((10, 20, 30), 92))


def test_token_types_count_as_preprocessing(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", a=FIRST, b=SECOND)
    assert len({chain.preprocessing for chain in report.chains.values()}) == 1
    assert report.chains["a"].preprocessing != ""


def test_a_mask_beside_the_tokens_hides_no_cut(tmp_path: Path) -> None:
    first, second = Bert((10, 20, 30), 90, masked=True), Bert((10, 20, 40), 91, masked=True)
    report = export(tmp_path / "repo", a=first, b=second)
    assert not report.remarks
    (trunk,) = [segment for name, segment in report.plan.segments.items() if name.startswith("trunk")]
    own = sum(segment.macs for name, segment in report.repository.segments.items() if name != trunk.name)
    assert report.repository.segments[trunk.name].macs == 2 * (own - 2 * 18) / 2  # two layers of three, and each task has one
    check_answers(tmp_path / "repo", a=first, b=second)


def test_a_tuned_middle_shares_what_is_behind_it_beside_the_mask(tmp_path: Path) -> None:
    first, second = Bert((10, 20, 30), 90, masked=True), Bert((10, 25, 30), 91, masked=True)
    report = export(tmp_path / "repo", a=first, b=second)
    shared = [name for name in report.plan.segments if name.startswith("shared")]
    assert shared
    check_answers(tmp_path / "repo", a=first, b=second)
