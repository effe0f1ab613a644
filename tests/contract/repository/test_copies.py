"""The models that copy a tensor come and go with the tasks that need them, and are nobody else's business."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from contract.plan import make_plan
from contract.repository import Repository, read_repository
from contract.repository.config import parse_text
from contract.repository.write import foreign_entries
from exporter.export import ExportOptions, export_repository
from exporter.gc import collect_garbage
from exporter.remove import remove_tasks
from exporter.sharing.choose import CutOptions
from exporter.sources.task_model import Sources, TaskModel
from serving.catalog import Catalog
from tests.exporter.test_wirings import answers, export, rows
from tests.exporter.wired import FROZEN, plain

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Two equal tasks, and one that shares all but the head with them."""
    tasks = {"one": 20, "same": 20, "other": 21}
    return export(
        tmp_path / "repo", {name: (lambda head=head: plain(FROZEN, head=head)) for name, head in tasks.items()}
    ).repository


def copy_steps(repository: Repository) -> list[tuple[str, str, str]]:
    config = parse_text((repository.path / "all_tasks" / "config.pbtxt").read_text(), "all_tasks")
    steps = config.ensemble_scheduling.step
    return [(s.model_name, s.input_map["input"], s.output_map["output"]) for s in steps if s.model_name.startswith("copy-")]


def test_equal_outputs_are_computed_once_and_copied(repository: Repository) -> None:
    (copy,) = repository.copies
    assert copy_steps(repository) == [(copy, "inside:one", "one"), (copy, "inside:one", "same")]
    session = ort.InferenceSession(repository.path / copy / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(session.run(["output"], {"input": values})[0], values)


def test_the_embedded_engine_needs_none(repository: Repository) -> None:
    assert not {step.segment for step in make_plan(repository, ["one", "same", "other"]).steps} & {*repository.copies}
    found, ran = answers(repository, ["one", "same", "other"], rows(3))
    np.testing.assert_array_equal(found["one"], found["same"])
    assert len(ran) == len(set(ran))


def test_a_server_speaks_only_of_models_that_it_has(repository: Repository) -> None:
    catalog = Catalog(repository)
    steps = catalog.config(catalog.find("all_tasks")).ensemble_scheduling.step
    assert {step.model_name for step in steps} <= {*catalog.models}


def test_they_stay_as_long_as_they_are_needed(repository: Repository) -> None:
    path = repository.path
    assert foreign_entries(repository) == []
    assert remove_tasks(path, ["other"]).repository.copies == repository.copies
    assert collect_garbage(path)  # the head of the task that was removed
    assert read_repository(path).copies == repository.copies
    assert len(copy_steps(repository)) == 2
    assert remove_tasks(path, ["same"]).repository.copies == ()
    assert copy_steps(repository) == []


def test_a_repository_with_some_can_be_replaced(repository: Repository) -> None:
    sources = Sources({"one": lambda: TaskModel(plain(FROZEN, head=20))}, None)
    export_repository(sources, ExportOptions(repository.path, cuts=CutOptions("exact"), force=True))
    assert read_repository(repository.path).copies == ()
