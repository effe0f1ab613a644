from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.system import waited_for_cores_s
from serving.engines.scheduling.batch_size_profile import BatchSizeProfile, best_batch_size, measure
from tests.serving.nets import LAYERS

TRUNK, MID, TUNED = (LAYERS[name].segment() for name in ("trunk", "mid", "tuned-a"))


@pytest.mark.parametrize(
    ("seconds", "rows"),
    [
        ({1: 1.0}, 1),
        ({1: 1.0, 2: 2.0, 4: 4.0}, 1),  # nothing is won by waiting for more
        ({1: 1.0, 2: 1.2, 4: 2.0, 8: 4.0}, 4),
        ({1: 1.0, 2: 1.8, 4: 3.59}, 2),
        ({1: 1.0, 2: 1.5, 4: 4.4}, 2),  # caches
        ({1: 1.0, 2: 1.98, 4: 3.96, 8: 7.9}, 1),
    ],
)
def test_the_smallest_number_of_rows_that_is_as_good_as_the_best(seconds: Mapping[int, float], rows: int) -> None:
    assert best_batch_size(seconds) == rows


@given(st.dictionaries(st.sampled_from([1, 2, 4, 8, 16]), st.floats(1e-6, 10), min_size=1))
def test_it_is_one_that_was_measured_and_within_three_percent(seconds: dict[int, float]) -> None:
    rows = best_batch_size(seconds)
    assert seconds[rows] / rows <= 1.03 * min(value / size for size, value in seconds.items())


class Machine:
    """Runs that take a known time, on a clock of their own."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.asked: list[int] = []
        self.now = 0.0
        self._seconds = seconds

    def __call__(self, rows: int) -> None:
        self.asked.append(rows)
        self.now += self._seconds(rows)

    def clock(self) -> float:
        return self.now


def test_sizes_double_up_to_the_most_and_end_when_they_get_worse() -> None:
    machine = Machine(lambda rows: 0.001)
    assert list(measure(machine, 6, 10, machine.clock)) == [1, 2, 4]
    machine = Machine(lambda rows: 0.002 * rows if rows <= 2 else 0.01 * rows)
    assert list(measure(machine, 64, 10, machine.clock)) == [1, 2, 4]


@given(st.floats(0, 2), st.floats(0.001, 1))
def test_the_budget_ends_it_and_one_row_is_always_measured(budget: float, seconds: float) -> None:
    machine = Machine(lambda rows: seconds * rows)
    assert 1 in measure(machine, 64, budget, machine.clock)
    assert machine.now <= max(4 * seconds, budget * (1 + 1e-9))


def test_what_was_learnt_holds_for_segments_of_the_same_shape_and_is_kept(tmp_path: Path) -> None:
    constant, linear = Machine(lambda rows: 0.001), Machine(lambda rows: 0.001 * rows)
    file = tmp_path / "cache" / "rows.json"
    limits = BatchSizeProfile(file, threads=1, clock=lambda: constant.now + linear.now)
    assert limits.limit(TRUNK) == TRUNK.max_batch_rows
    limits.learn(TRUNK, constant)
    limits.learn(MID, linear)
    assert (limits.limit(TRUNK), limits.limit(MID)) == (4, 1)
    constant.asked.clear()
    limits.learn(TUNED, constant)  # of MID's shape
    assert limits.limit(TUNED) == 1
    limits.save()
    again = BatchSizeProfile(file, threads=1)
    again.learn(TRUNK, constant)
    assert constant.asked == []
    assert again.limit(TRUNK) == 4
    assert BatchSizeProfile(file, threads=2).limit(TRUNK) == TRUNK.max_batch_rows  # another machine, so to say
    BatchSizeProfile(file, threads=2).save()
    assert BatchSizeProfile(file, threads=1).limit(TRUNK) == 4


@pytest.mark.parametrize(("threads", "waiting", "kept"), [(1, 0.0, True), (1, 0.04, True), (1, 0.06, False), (2, 0.06, True)])
def test_what_is_learnt_while_others_have_the_cores_is_learnt_again(
    tmp_path: Path, threads: int, waiting: float, kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    machine = Machine(lambda rows: 0.001)
    file = tmp_path / "cache" / "rows.json"

    def started() -> BatchSizeProfile:
        limits = BatchSizeProfile(file, threads, clock=machine.clock, waited=lambda: waiting * machine.now)
        limits.learn(TRUNK, machine)
        limits.save()
        return limits

    assert started().limit(TRUNK) == 4  # it holds for this process, whatever it was
    assert ("learnt again at the next start" in caplog.text) == (not kept)
    machine.asked.clear()
    started()
    assert bool(machine.asked) == (not kept)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not tell how long threads wait for cores")
def test_the_kernel_tells_that_a_thread_had_to_wait_for_its_core() -> None:
    busy = f"import os, time\nos.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\nprint(flush=True)\nwhile True: pass"
    ours = os.sched_getaffinity(0)
    other = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        os.sched_setaffinity(0, [min(ours)])
        before, end = waited_for_cores_s(), time.perf_counter() + 0.2
        while time.perf_counter() < end:
            pass
        assert waited_for_cores_s() - before > 0.02  # some half of it
    finally:
        os.sched_setaffinity(0, ours)
        other.kill()
        other.communicate()


def test_a_file_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    BatchSizeProfile(tmp_path / "taken" / "rows.json", threads=1).save()
