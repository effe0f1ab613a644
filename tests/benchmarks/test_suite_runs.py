"""Each benchmark at a size that says nothing but that it works."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.framework.benchmark import Benchmark
from benchmarks.framework.options import Options, Scale
from benchmarks.framework.record import read_record, run_benchmark
from benchmarks.framework.result import Result
from benchmarks.harness.timing import Timing
from benchmarks.latency.torch_variants import write_by_hand
from benchmarks.latency.variants import LatencyBench
from benchmarks.models.families import first_tasks, network_cache, networks
from benchmarks.models.merged import write_merged
from benchmarks.models.separate import SIDE_BY_SIDE, SideBySide, share_out
from benchmarks.models.synthetic import Family
from benchmarks.models.tiny import TASKS, write_tiny_family, write_tiny_forks
from benchmarks.registry import BENCHMARKS
from contract.plan import make_plan
from contract.repository import Repository
from serving.engines.embedded import EmbeddedEngine
from serving.engines.openvino.package import has_bf16

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    return Options(tmp_path_factory.mktemp("scratch"), Scale.tiny, "int8,bf16", threads=1)  # of which latency alone takes notice


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return write_tiny_family(tmp_path_factory.mktemp("tiny") / "repository")


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_every_benchmark_gives_tables_that_are_whole(benchmark: Benchmark, options: Options, tmp_path: Path) -> None:
    record = run_benchmark(benchmark, options)
    result = record.result
    assert result.failed == ()
    assert result.headline.endswith(".")
    assert all(note.strip() for note in result.notes)
    for table in result.tables:
        assert table.rows
        assert all(column.key in row for column in table.columns for row in table.rows)
        assert all(cell.median_ms > 0 for row in table.rows for cell in row.values() if isinstance(cell, Timing))
    for plot in result.plots:
        assert plot.series
        assert all(len(series.x) == len(series.y) for series in plot.series)
    file = tmp_path / "record.json"
    file.write_text(record.to_json())
    assert read_record(file) == record
    if benchmark.precise:
        _check_precisions(result, options)


def _check_precisions(result: Result, options: Options) -> None:
    """int8 stands beside fp32: its times, its answers with random weights, and the accuracy of a trained task."""
    times, answers, trained = (table.rows for table in result.tables if "other precisions" in table.title)
    assert [(row["tasks"], row["precision"]) for row in times] == [(1, "fp32"), (1, "int8"), (2, "fp32"), (2, "int8")]
    assert all(isinstance(row[kind], Timing) for row in times for kind in ("shared", "separate"))
    assert [row["precision"] for row in answers] == ["int8"]
    on_openvino = ["OpenVINO, as exported", *["OpenVINO, bf16"] * has_bf16()]
    assert [(row["task"], row["precision"]) for row in trained] == [("parity", of) for of in ("fp32", "int8", *on_openvino)]
    (engines,) = (table.rows for table in result.tables if table.title == "Other engines")
    assert [(row["tasks"], row["engine"], row["precision"]) for row in engines] == [
        (2, "OpenVINO", "fp32"),
        *[(2, "OpenVINO", "bf16")] * has_bf16(),
    ]
    assert all(isinstance(row[key], float) and row[key] > 0 for row in engines for key in ("faster", "sharing", "share"))
    assert not list(options.scratch.glob("int8-*"))  # what was converted is gone


@pytest.mark.parametrize("threads", [2, 4])
def test_networks_side_by_side_answer_as_one_after_another(tmp_path: Path, threads: int) -> None:
    _, files = write_tiny_forks(tmp_path, 3)
    feed = {"image": np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)}
    expected = {name: ort.InferenceSession(file).run(None, feed)[0] for name, file in files.items()}
    names = list(files)
    side_by_side = SideBySide(files, threads)
    for chosen in (names[:2], names, names[::-1], names[:2]):  # with four threads, two networks have two each and three have one
        run = side_by_side.open(chosen)
        assert run is not None
        for name, values in zip(chosen, run(feed), strict=True):
            np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)
    side_by_side.close()


def test_one_network_or_one_thread_has_nothing_side_by_side(tmp_path: Path) -> None:
    files = dict.fromkeys("ab", tmp_path / "absent.onnx")  # nothing is opened
    assert SideBySide(files, 1).open(["a", "b"]) is None
    assert SideBySide(files, 2).open(["a"]) is None


def test_with_two_threads_separate_networks_are_timed_side_by_side_too(options: Options) -> None:
    network = networks(options)[0]
    family = network_cache(options).family(network, network.forks[0], 2)
    by_hand = write_by_hand(network_cache(options).backbone(network), network.forks[0], 2)
    rows = np.zeros((1, network.size, network.size, 3), np.uint8)
    with LatencyBench(family, rows, 2, (), (), by_hand, ()) as bench:
        one, two = (bench.measure(bench.names[:count], 1, 1) for count in (1, 2))
    assert (one.wrong, two.wrong) == ("", "")  # all answers are alike
    assert SIDE_BY_SIDE not in one.seconds
    assert two.seconds.keys() - one.seconds.keys() == {SIDE_BY_SIDE}


def test_tasks_of_a_family_take_pictures_so_that_load_can_send_jpegs(options: Options) -> None:
    network = networks(options)[0]
    repository = network_cache(options).family(network, network.forks[0], 2).repository
    assert {task.preprocessing and task.preprocessing.width for task in repository.tasks.values()} == {network.size}


@given(st.integers(1, 40), st.integers(1, 40))
def test_threads_are_shared_out_among_the_networks(networks: int, threads: int) -> None:
    at_a_time, each = share_out(networks, threads)
    assert at_a_time == min(networks, threads)
    assert at_a_time * each <= threads < at_a_time * (each + 1)


@pytest.mark.parametrize("tasks", [["early"], ["late", "probe"], list(TASKS)])
def test_one_graph_answers_as_the_engine_does(repository: Repository, tmp_path: Path, tasks: list[str]) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    graph = ort.InferenceSession(write_merged(repository, tasks, tmp_path / "merged.onnx"))
    assert [output.name for output in graph.get_outputs()] == tasks

    async def ask() -> dict[str, np.ndarray]:
        engine, plan = EmbeddedEngine(repository, threads=1), make_plan(repository, tasks)
        await engine.start()
        try:
            return dict((await engine.infer(plan, {"image": rows})).outputs)
        finally:
            await engine.aclose()

    expected = asyncio.run(ask())
    for task, values in zip(tasks, graph.run(None, {"image": rows}), strict=True):
        np.testing.assert_allclose(values, expected[task], rtol=1e-5, atol=1e-6)


def test_one_graph_holds_each_weight_once(repository: Repository, tmp_path: Path) -> None:
    write_merged(repository, list(TASKS), tmp_path / "merged.onnx")
    weights = sum(segment.weight_bytes for segment in repository.segments.values())
    # External data are aligned to pages, so that a file of tiny weights is larger, but by less than another copy of each would be.
    files = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert files < 2 * weights


def test_a_smaller_family_needs_only_its_own_segments(repository: Repository) -> None:
    family = Family(repository, {name: Path(name) for name in ("probe", "early", "middle", "late")})
    one = first_tasks(family, 1)
    assert list(one.networks) == list(one.repository.tasks) == ["probe"]
    assert set(one.repository.segments) == {step.segment for step in repository.tasks["probe"].steps}
    assert first_tasks(family, 4).repository.segments == repository.segments
