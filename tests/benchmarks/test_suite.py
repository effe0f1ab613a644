"""What the benchmarks decide and keep: counted by hand, without measuring anything."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.framework.benchmark import Benchmark
from benchmarks.framework.errors import NoSuchNetwork, NotARecord, OnlyInFp32, UnknownBenchmark, UnknownPrecision
from benchmarks.framework.options import Options, Scale
from benchmarks.framework.record import read_record, run_benchmark
from benchmarks.framework.result import Column, Plot, Result, Series, Style, Table, Unit
from benchmarks.harness.machine import machine_facts, source_commit, versions
from benchmarks.harness.noise import LIMIT, Measurement, NoiseWatch, measure_quietly
from benchmarks.harness.timing import Timing
from benchmarks.models.families import choose_networks
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE
from benchmarks.registry import BENCHMARKS, check_precisions, find_benchmarks

TIMING = Timing(2.5, 1.0, 3.0, 30)
WHOLE = Result(
    "All is well.",
    (
        Table(
            "Numbers",
            (Column("n", "number", Unit.number), Column("t", "time", Unit.ms)),
            ({"n": 1, "t": TIMING, "raw": 0.5}, {"n": None, "t": "left out"}),
            "A caption.",
        ),
    ),
    (
        Plot(
            "plot",
            "A plot",
            "Of it.",
            "x",
            "y",
            (Series.of_timings("a", [1], [TIMING]), Series("b", (1,), (2,), style=Style.span)),
            "xy",
        ),
    ),
    ("A note.",),
    ("A failure.",),
    {"seconds": [1.0, 2.0]},
)


def test_a_result_is_the_same_after_json() -> None:
    assert Result.from_data(json.loads(json.dumps(WHOLE.to_data()))) == WHOLE


def run(options: Options) -> Result:
    """A benchmark: this module is one."""
    options.say("Measuring")
    return Result("All is well.", (Table("Numbers", (Column("n", "number", Unit.number),), ({"n": options.pick(3, 2, 1)},)),))


TOY = Benchmark("toy", "A toy.", __name__)


def test_a_record_says_what_it_was_measured_on(tmp_path: Path) -> None:
    said: list[str] = []
    record = run_benchmark(TOY, Options(tmp_path, Scale.tiny, threads=1, say=said.append))
    assert said == ["Measuring"]
    assert record.result.tables[0].rows == ({"n": 1},)
    assert record.options == {"scale": "tiny", "precision": "fp32", "threads": 1, "only": [], "runs": None}
    assert record.machine["processor"]
    assert record.machine["memory_bytes"] > 1e8
    assert record.machine["cores"] >= 1
    assert {"espalier", "numpy", "torch"} <= set(record.versions)
    assert record.commit == source_commit()
    file = tmp_path / "toy.json"
    file.write_text(record.to_json())
    assert read_record(file) == record


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "espalier-benchmark/0"}', '{"format": "espalier-benchmark/1"}'])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "flops.json").write_text(text)
    with pytest.raises(NotARecord, match=r"flops\.json is no result"):
        read_record(tmp_path / "flops.json")


def test_facts_of_this_machine_are_plain_json() -> None:
    assert json.loads(json.dumps([machine_facts(), versions()])) == [machine_facts(), versions()]


def test_the_commit_is_that_of_the_checkout() -> None:
    assert re.fullmatch(r"|[0-9a-f]{40}\+?", source_commit())
    asked = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    if asked.returncode:
        pytest.skip("these are no files of a checkout")
    assert source_commit().removesuffix("+") == asked.stdout.strip()


def test_benchmarks_are_found_by_name() -> None:
    assert find_benchmarks("all") == BENCHMARKS
    assert [benchmark.name for benchmark in find_benchmarks("memory")] == ["memory"]
    with pytest.raises(UnknownBenchmark, match="flops, latency"):
        find_benchmarks("speed")


def test_fp32_comes_first_among_the_precisions(tmp_path: Path) -> None:
    assert Options(tmp_path).precisions == ("fp32",)
    assert Options(tmp_path, precision="int8").precisions == ("fp32", "int8")
    assert Options(tmp_path, precision="bf16, int8,fp32,bf16").precisions == ("fp32", "bf16", "int8")


@pytest.mark.parametrize("precision", ["int4", "", "int8,", "FP32"])
def test_unknown_precisions_are_refused(tmp_path: Path, precision: str) -> None:
    with pytest.raises(UnknownPrecision, match=r"There is no precision .* fp32, int8, bf16, with commas"):
        Options(tmp_path, precision=precision)


def test_other_precisions_are_refused_by_benchmarks_that_do_not_measure_them() -> None:
    check_precisions(BENCHMARKS, ["fp32"])
    check_precisions(find_benchmarks("latency"), ["fp32", "int8", "bf16"])
    with pytest.raises(OnlyInFp32, match=r"fp32 alone are measured by flops, merge.*; give --precision to latency\."):
        check_precisions(BENCHMARKS, ["fp32", "int8"])


@pytest.mark.parametrize(
    ("loops", "runs", "noisy"),
    [
        ([1.0, 1.05], 1, False),
        ([1.0, 1.2, 1.0, 1.0], 2, False),  # once more, and then it was quiet
        ([1.0, 0.8, 1.0, 1.5], 2, True),  # no third time
    ],
)
def test_a_measurement_beside_a_changing_null_loop_is_made_once_more(loops: list[float], runs: int, noisy: bool) -> None:
    seconds = iter(loops)
    measurement = measure_quietly(counting(), NoiseWatch(lambda: next(seconds)))
    assert (measurement.value, measurement.runs, measurement.noisy) == (runs, runs, noisy)
    assert measurement.mark == ("noisy (null loop 50%)" if noisy else "")
    assert next(seconds, None) is None


@pytest.mark.parametrize(
    ("shares", "runs", "noisy"), [([0.05], 1, False), ([0.0], 1, False), ([0.5, 0.02], 2, False), ([0.2, 0.3], 2, True)]
)
def test_a_measurement_that_shared_its_cores_is_made_once_more(shares: list[float], runs: int, noisy: bool) -> None:
    cores, moment, had, left = 4, 0.0, 100.0, iter(shares)
    made = counting()

    def measure() -> int:
        nonlocal moment, had
        moment += 2.0
        had += next(left) * 2.0 * cores
        return made()

    with patch("benchmarks.harness.noise.time.perf_counter", lambda: moment):
        measurement = measure_quietly(measure, NoiseWatch(lambda: 1.0, lambda: had, cores))
    assert (measurement.value, measurement.runs, measurement.noisy) == (runs, runs, noisy)
    assert measurement.mark == ("noisy (others 30%)" if noisy else "")
    assert measurement.cells == {"noise": measurement.mark, "drift": 0.0, "others": pytest.approx(shares[-1])}


def counting() -> Callable[[], int]:
    """Return a measurement that gives how often it was made."""
    numbers = count(1)
    return lambda: next(numbers)


@settings(max_examples=25)
@given(st.floats(0.01, 10), st.floats(0.01, 10))
def test_noise_is_the_same_whichever_loop_was_slower(before: float, after: float) -> None:
    turns = ([before, after] * 2, [after, before] * 2)
    found = [measure_quietly(lambda: 0, NoiseWatch(iter(loops).__next__)) for loops in turns]
    assert found[0] == found[1]
    assert found[0].noisy == (max(before, after) / min(before, after) - 1 > LIMIT)


def test_the_speedup_if_branches_ran_one_by_one_follows_from_the_time_of_a_branch() -> None:
    from benchmarks.latency.case import LatencyCase
    from benchmarks.latency.variants import Times

    # A branch that takes a quarter of the time but a tenth of the MACs: 4 tasks take 3 + 4 x 1 instead of 4 x 4.
    times = Times({"shared": [0.008] * 3, "separate": [0.016] * 3}, trunk_s=0.003, branch_s=0.001, wrong="")
    measured = LatencyCase(network="net", fork="block", tasks=4, predicted=4 / (0.9 + 0.4), times=Measurement(times, 0.0, 1))
    assert measured.one_by_one == pytest.approx(16 / 7)
    assert measured.speedup == pytest.approx(2)
    assert measured.share == pytest.approx(2 * 1.3 / 4)
    alone = replace(measured, tasks=1)
    assert math.isclose(alone.one_by_one, 4)


@pytest.mark.parametrize(("side_by_side", "baseline", "speedup"), [(0.012, SIDE_BY_SIDE, 1.5), (0.017, SEPARATE, 2)])
def test_the_baseline_is_the_faster_of_the_separate_ones(side_by_side: float, baseline: str, speedup: float) -> None:
    from benchmarks.latency.case import LatencyCase
    from benchmarks.latency.variants import Times

    # Medians: the third run of each says nothing.
    seconds = {"shared": [0.008] * 3, SEPARATE: [0.016, 0.016, 0.1], SIDE_BY_SIDE: [side_by_side, side_by_side, 0.001]}
    measured = LatencyCase(
        network="net", fork="block", tasks=4, predicted=3.0, times=Measurement(Times(seconds, 0.003, 0.001, ""), 0.0, 1)
    )
    assert measured.baseline == baseline
    assert measured.speedup == pytest.approx(speedup)
    assert measured.share == pytest.approx(speedup / 3)
    assert measured.share_one_after_another == pytest.approx(2 / 3)
    assert measured.speedup / measured.one_by_one == pytest.approx(7 / 8)  # the parts' time over the time of the whole


def test_networks_are_chosen_by_a_part_of_their_names(tmp_path: Path) -> None:
    assert [network.name for network in choose_networks(Options(tmp_path))] == ["resnet50", "vit_small_patch16_224"]
    assert [network.name for network in choose_networks(Options(tmp_path, only=("ViT",)))] == ["vit_small_patch16_224"]
    with pytest.raises(NoSuchNetwork, match=r"No network's name contains 'swin'; there are resnet50, vit_small_patch16_224\."):
        choose_networks(Options(tmp_path, only=("vit", "swin")))
