from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from contract.errors import ForeignFiles, NotARepository, OutputExists
from contract.preprocessing import Preprocessing
from contract.repository import Repository, read_repository
from contract.repository.rows import relative_error
from exporter.errors import AnotherArchitecture, BadTaskName, ExportError, NoTasks, ParityError
from exporter.export import ExportOptions, ExportReport, export_repository
from exporter.sharing.choose import CutOptions
from exporter.sources.task_model import Sources, TaskModel
from tests.exporter.graphs import SIZE, Net
from tests.exporter.wrong_passes import rewritten_by, scaled

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

BACKBONE = Net(blocks=(1, 2, 3, 4), head=0)
FAMILY = {
    "probe": Net(blocks=(1, 2, 3, 4), head=1),
    "late": Net(blocks=(1, 2, 3, 40), head=2, classes=5),
    "middle": Net(blocks=(1, 20, 3, 4), head=3),
    "early": Net(blocks=(10, 2, 3, 4), head=4, classes=2),
}


def export(out: Path, tasks: dict[str, Net], backbone: Net | None = BACKBONE, **options: object) -> ExportReport:
    loaders = {name: (lambda net=net: TaskModel(net.model())) for name, net in tasks.items()}
    source = None if backbone is None else (lambda: TaskModel(backbone.model()))
    # These networks are so small that every cut costs more than it saves.
    options.setdefault("cuts", CutOptions("exact"))
    return export_repository(Sources(loaders, source), ExportOptions(out, **options))  # type: ignore[arg-type]


def composed(repository: Repository, task: str, rows: np.ndarray) -> np.ndarray:
    for step in repository.tasks[task].steps:
        file = str(repository.model_file(step.segment))
        rows = ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"input": rows})[0]
    return rows


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_composed_segments_equal_the_whole_task_model(tmp_path: Path, batch: int) -> None:
    repository = export(tmp_path / "repo", FAMILY).repository
    rows = np.random.default_rng(batch).integers(0, 256, (batch, SIZE, SIZE, 3), dtype=np.uint8)
    for name, net in FAMILY.items():
        whole = ort.InferenceSession(net.proto().SerializeToString(), providers=["CPUExecutionProvider"])
        expected = whole.run(None, {"image": rows})[0]
        assert np.abs(composed(repository, name, rows) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_every_block_is_stored_once(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", FAMILY)
    segments = report.repository.segments
    # Blocks 0 (stem) to 5 (head): the backbone's five blocks, three tuned ones, four heads.
    assert sum(last - first + 1 for first, last in (segment.blocks for segment in segments.values())) == 5 + 3 + 4
    assert report.plan.forks == {"probe": 5, "late": 4, "middle": 2, "early": 1}
    middle, early = ({step.segment for step in report.repository.tasks[task].steps} for task in ("middle", "early"))
    assert sorted(name[:12] for name in middle & early) == ["shared-03-03", "shared-04-04", "trunk-00-00-"]


def test_the_repository_says_what_serving_needs(tmp_path: Path) -> None:
    preprocessing = Preprocessing(SIZE, SIZE)
    model = TaskModel(FAMILY["late"].model(), tuple("abcde"), preprocessing, {"seed": "1"})
    report = export_repository(Sources({"late": lambda: model}), ExportOptions(tmp_path / "repo", max_batch_rows=16))
    task = read_repository(tmp_path / "repo").tasks["late"]
    assert task == report.repository.tasks["late"]
    assert (task.labels, task.preprocessing, task.provenance) == (tuple("abcde"), preprocessing, {"seed": "1"})
    assert (task.inputs[0].dtype, task.inputs[0].shape, task.outputs[0].shape, task.max_batch_rows) == (
        "UINT8",
        (SIZE, SIZE, 3),
        (5,),
        16,
    )
    assert (tmp_path / "repo" / "all_tasks" / "late.labels.txt").read_text() == "a\nb\nc\nd\ne\n"
    assert (tmp_path / "repo" / "all_tasks" / "1").is_dir()


def test_the_same_export_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, prefix in (("one", ""), ("two", "renamed.")):
        tasks = {task: Net(net.blocks, net.head, net.classes, prefix=prefix) for task, net in FAMILY.items()}
        export(tmp_path / name, tasks)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) > 20
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_another_preprocessing_is_allowed_and_explained(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", {"late": FAMILY["late"], "other": Net(blocks=(1, 2, 3, 4), head=1, scale=1 / 127)})
    assert report.remarks.keys() == {"other"}
    assert "shares no computation, because its preprocessing is not that of the backbone" in report.remarks["other"]
    assert "4 of its 6 blocks are still stored once" in report.remarks["other"]


def test_equal_tasks_are_one_chain_of_segments(tmp_path: Path) -> None:
    repository = export(tmp_path / "repo", {"one": FAMILY["late"], "two": FAMILY["late"]}).repository
    one, two = repository.tasks["one"].steps, repository.tasks["two"].steps
    assert [step.segment for step in one] == [step.segment for step in two]


@pytest.mark.parametrize(
    ("tasks", "error", "words"),
    [
        ({}, NoTasks, "There is no task to export"),
        ({"all_tasks": BACKBONE}, BadTaskName, "all_tasks"),
        ({"../up": BACKBONE}, BadTaskName, "letters, digits"),
        ({"stranger": Net(blocks=(7, 8), head=9, stem=9)}, AnotherArchitecture, "another architecture"),
    ],
)
def test_bad_tasks_are_refused_and_nothing_is_written(
    tmp_path: Path, tasks: dict[str, Net], error: type[ExportError], words: str
) -> None:
    with pytest.raises(error, match=words):
        export(tmp_path / "repo", tasks)
    assert list(tmp_path.iterdir()) == []


def test_a_fully_tuned_network_of_the_same_architecture_is_no_stranger(tmp_path: Path) -> None:
    report = export(tmp_path / "repo", {"full": Net(blocks=(11, 12, 13, 14), head=5, stem=15)})
    assert report.plan.forks == {"full": 0}
    assert "first block were changed" in report.remarks["full"]


def test_a_failed_parity_check_leaves_nothing_behind(tmp_path: Path) -> None:
    with rewritten_by(scaled), pytest.raises(ParityError, match="nothing was written"):
        export(tmp_path / "repo", FAMILY)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_repository_is_replaced_only_by_force(tmp_path: Path) -> None:
    export(tmp_path / "repo", FAMILY)
    with pytest.raises(OutputExists, match="have it replaced"):
        export(tmp_path / "repo", {"late": FAMILY["late"]})
    assert len(read_repository(tmp_path / "repo").tasks) == 4
    export(tmp_path / "repo", {"late": FAMILY["late"]}, force=True)
    assert list(read_repository(tmp_path / "repo").tasks) == ["late"]
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_force_does_not_delete_a_folder_that_is_no_repository(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(NotARepository):
        export(tmp_path / "precious", FAMILY, force=True)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_force_does_not_delete_what_stands_beside_the_models(tmp_path: Path) -> None:
    export(tmp_path / "repo", {"late": FAMILY["late"]})
    (tmp_path / "repo" / "another_model").mkdir()
    with pytest.raises(ForeignFiles, match="another_model"):
        export(tmp_path / "repo", FAMILY, force=True)
    assert list(read_repository(tmp_path / "repo").tasks) == ["late"]
    assert (tmp_path / "repo" / "another_model").is_dir()


def test_the_error_is_relative_to_the_spread() -> None:
    expected = np.array([[1000.0, 0.0], [1000.001, 0.0]])
    assert relative_error(expected, expected) == 0
    assert relative_error(expected + 1e-4, expected) == pytest.approx(0.2, rel=1e-3)
    assert relative_error(np.ones((2, 2)), np.zeros((2, 2))) == np.inf
