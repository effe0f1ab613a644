"""Repositories of every kind, measured at a size that says nothing but that it works."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.framework.errors import BenchmarkError
from benchmarks.framework.options import Options, Scale
from benchmarks.framework.record import read_record, run_benchmark
from benchmarks.framework.result import Result
from benchmarks.harness.noise import Measurement
from benchmarks.harness.timing import Timing
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE
from benchmarks.models.tiny import write_tiny_family
from benchmarks.repository import engines
from benchmarks.repository.benchmark import read, repository_benchmark
from benchmarks.repository.case import Case
from benchmarks.repository.choice import ALL, Asked
from benchmarks.repository.engines import EngineChoice
from benchmarks.repository.measure import SHARED, Times
from benchmarks.repository.question import ALL_SIZES, Question
from contract.errors import RepositoryError
from contract.repository import Repository
from serving.engines.base import Engine
from serving.engines.embedded import EmbeddedEngine
from serving.engines.openvino.package import has_bf16
from tests.espalier.test_cli import espalier
from tests.serving import free_nets
from tests.serving.plain_models import add_sub, add_sub_of_strings, config_of, matmul, write_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_family(tmp_path_factory.mktemp("images") / "shop").path


@pytest.fixture
def without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes whose memory is measured take seconds; one test has them."""
    monkeypatch.setattr("benchmarks.repository.benchmark.resident_bytes", lambda *arguments: None)


def measured(question: Question, scratch: Path, threads: int = 1, only: tuple[str, ...] = ("onnx runtime,",)) -> Result:
    record = run_benchmark(repository_benchmark(question), Options(scratch, Scale.tiny, threads=threads, only=only))
    assert record.result.failed == ()
    assert all(note.strip() for note in record.result.notes)
    for table in record.result.tables:
        assert table.rows
        assert all(column.key in row for column in table.columns for row in table.rows)
    (scratch / "record.json").write_text(record.to_json())
    assert read_record(scratch / "record.json") == record
    return record.result


def requests(result: Result) -> list[tuple[object, object]]:
    return [(row["request"], row["tasks"]) for row in result.tables[0].rows]


def test_a_repository_of_images_is_measured_whole(images: Path, tmp_path: Path) -> None:
    result = measured(Question(images, rows=2), tmp_path, threads=2, only=())
    assert result.headline.startswith("shop: 3 tasks take ")
    speedups, times, sizes, engine, tasks = result.tables
    assert requests(result) == [("probe", 1), ("middle", 1), ("early", 1), ("some", 2), ("all", 3)]
    assert [row["possible"] for row in speedups.rows][:3] == [1.0] * 3
    assert all(isinstance(row[variant], Timing) for row in times.rows[3:] for variant in (SHARED, SEPARATE, SIDE_BY_SIDE))
    assert times.rows[0][SIDE_BY_SIDE] is None
    (row,) = sizes.rows
    assert all(isinstance(row[key], int) and row[key] > 0 for key in ("memory", "separate_memory", "disk", "separate_disk"))
    assert [(row["engine"], row["precision"]) for row in engine.rows] == [
        ("ONNX Runtime", "as exported"),
        ("OpenVINO", "as exported"),
        *[("OpenVINO", "bf16")] * has_bf16(),
    ]
    assert all(isinstance(row["sharing"], float) and row["sharing"] > 0 for row in engine.rows)
    assert all(row["of_spread"] < 1e-3 for row in engine.rows[1:])  # so small that ONNX Runtime computes it there, too
    assert [row["task"] for row in tasks.rows] == ["probe", "middle", "early"]
    assert len(result.plots) == 1
    assert "Segments: 8 in fp32." in result.notes
    assert any("not kept" in note for note in result.notes)
    assert list(tmp_path.iterdir()) == [tmp_path / "record.json"]  # what was composed is gone


@pytest.mark.usefixtures("without_memory")
def test_texts_of_any_length_and_tasks_that_take_different_inputs_are_measured(tmp_path: Path) -> None:
    free_nets.write_free(tmp_path / "texts", ("tag", *free_nets.TWINS))
    (tmp_path / "scratch").mkdir()
    result = measured(Question(tmp_path / "texts", sizes={ALL_SIZES: 6, "length": 5}), tmp_path / "scratch")
    assert requests(result) == [("tag", 1), ("pair", 1), ("all", 2)]
    assert any("document length 6, length 5, query length 6; " in note for note in result.notes)


def test_models_as_triton_has_them_are_measured_one_by_one(tmp_path: Path) -> None:
    models = tmp_path / "models"
    write_model(models / "numbers", add_sub(), config_of("INT32"))
    write_model(models / "strings", add_sub_of_strings(), config_of("STRING"))
    write_model(models / "product", matmul())
    (tmp_path / "scratch").mkdir()
    result = measured(Question(models, tasks=("numbers", "product")), tmp_path / "scratch")
    assert [tasks for _, tasks in requests(result)] == [1, 1]
    assert [row["possible"] for row in result.tables[0].rows] == [None, None]
    assert [table.title for table in result.tables] == [
        "Speed-up",
        "Time of one request",
        "Engines and precisions",
        "Tasks that were measured",
    ]
    assert result.plots == ()
    assert "nothing is shared" in result.headline


@pytest.mark.usefixtures("without_memory")
def test_another_engine_appears_beside_the_first_with_its_error(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that answers a tenth more: that is its error over the size, whatever the spread."""

    class More(EmbeddedEngine):
        async def infer(self, *arguments: object, **options: object) -> object:  # type: ignore[override]
            answer = await super().infer(*arguments, **options)  # type: ignore[arg-type]
            return replace(answer, outputs={name: values * np.float32(1.1) for name, values in answer.outputs.items()})

    def refusing(repository: Repository, threads: int, folder: Path, at_a_time: int) -> Engine:
        engine = EmbeddedEngine(repository)

        async def start() -> None:
            raise RepositoryError("It takes no images.")

        monkeypatch.setattr(engine, "start", start)
        return engine

    first, *_ = engines._ENGINES
    more = EngineChoice("More", "a tenth", lambda repository, threads, folder, at_a_time: More(repository, threads=threads))
    monkeypatch.setattr(
        "benchmarks.repository.benchmark.find_engines", lambda words: ([first, more, EngineChoice("None", "fp8", refusing)], [])
    )
    result = measured(Question(images, tasks=("early", "late")), tmp_path, threads=2)
    table = next(table for table in result.tables if table.title.startswith("Engines"))
    assert [row["engine"] for row in table.rows] == ["ONNX Runtime", "More"]
    assert table.rows[0]["of_spread"] is None
    assert all(isinstance(table.rows[1][key], float) and table.rows[1][key] > 0 for key in ("faster", "sharing", "share"))
    assert table.rows[1]["agreement"] == 1.0
    assert isinstance(table.rows[1]["of_spread"], float)
    assert table.rows[1]["of_spread"] > 0.01
    assert "None, fp8 is left out: It takes no images." in result.notes


@pytest.mark.usefixtures("without_memory")
def test_answers_that_differ_make_the_numbers_useless(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.repository.benchmark.SAME", -1.0)
    record = run_benchmark(repository_benchmark(Question(images, tasks=("early",))), Options(tmp_path, Scale.tiny, threads=1))
    assert record.result.failed
    assert record.result.failed[0].startswith("early: separate and shared differ by ")


def test_the_speedup_is_over_the_faster_of_the_separate_ones() -> None:
    seconds = {SHARED: [0.008] * 3, SEPARATE: [0.016, 0.016, 0.1], SIDE_BY_SIDE: [0.012, 0.012, 0.001]}
    case = Case(asked=Asked(ALL, ("a", "b")), possible=3.0, times=Measurement(Times(seconds, ""), 0.0, 1))
    assert (case.baseline, case.speedup) == (SIDE_BY_SIDE, pytest.approx(1.5))
    assert case.share == pytest.approx(0.5)
    assert case.share_one_after_another == pytest.approx(2 / 3)
    assert replace(case, possible=None).share is None


def test_the_command_measures_a_repository_that_is_not_changed_and_needs_no_torch(images: Path, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in images.rglob("*")}
    script = (
        "import sys\n"
        "for name in ('torch', 'timm', 'torchvision'): sys.modules[name] = None\n"
        "from benchmarks.framework.options import NOTHING_WATCHED, Options\n"
        "Options.watch = lambda self: NOTHING_WATCHED\n"
        "import benchmarks.repository.benchmark as benchmark\n"
        "benchmark.resident_bytes = lambda *arguments: None\n"
        f"sys.argv = ['espalier', 'bench', {str(images)!r}, *'--quick --runs 1 --threads 1 --tasks early --only onnx --out out'.split()]\n"
        "from espalier.cli import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "shop: a request for early takes " in done.stdout
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {"repository-shop.json", "repository-shop.md", "report.html"}
    assert {file: file.stat().st_mtime_ns for file in images.rglob("*")} == before


def test_what_is_no_repository_is_refused_as_inspect_does(images: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "damaged"
    write_tiny_family(damaged)
    segment = next(iter(read(damaged).segments))
    (damaged / segment / "config.pbtxt").write_text("what is this")
    for path in (tmp_path / "empty", damaged):
        refused, shown = espalier("bench", path, "--out", tmp_path / "out"), espalier("inspect", path)
        assert refused.returncode == shown.returncode != 0
        assert refused.stderr == shown.stderr
    neither = espalier("bench", "speed", cwd=tmp_path)
    assert "There is no benchmark 'speed', and no folder; give all, list, one of flops, latency" in neither.stderr
    assert "the folder that an export wrote" in " ".join(neither.stderr.split())
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_go_together_are_refused(images: Path, tmp_path: Path) -> None:
    for arguments, words in {
        ("latency", "--tasks", "a"): "They go with a model repository.",
        ("memory", "--rows", "2"): "They go with a model repository.",
        (str(images), "--precision", "int8"): "A repository is measured in every precision",
        (str(images), "--size", "big"): "'big' is no size, such as 128 or length=128,height=64.",
    }.items():
        refused = espalier("bench", *arguments, "--out", tmp_path / "out")
        assert refused.returncode == 2
        assert words in " ".join(refused.stderr.replace("│", " ").split())
    for question in (Question(images, rows=10**6), Question(images, sizes={"length": 3})):
        with pytest.raises(BenchmarkError):
            measured(question, tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_list_says_that_a_repository_can_be_given() -> None:
    assert "REPO        A repository of your own: " in espalier("bench", "list").stdout
