"""Whose work the cores did: ours is what we have started, however it lives on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.harness.foreign_work import foreign_seconds, mark_ours, our_seconds

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_WORK_S = 0.5
_ROUNDING_S = 10 * TICK_S
# Works for a while of its own time, says so, and stays until it is told to go.
WORKER = f"""
import sys, time
while time.process_time() < {_WORK_S}:
    pass
print("done", flush=True)
sys.stdin.readline()
"""
# Starts a worker, with a session of its own, and leaves it behind.
LEAVING = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WORKER!r}], start_new_session=True)"


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("ESPALIER_BENCHMARK", raising=False)
    mark_ours()
    yield
    os.environ.pop("ESPALIER_BENCHMARK", None)


def test_what_the_wanted_cores_did_and_was_not_ours_is_others_work(tmp_path: Path) -> None:
    # user nice system idle iowait irq softirq steal guest guest_nice; cpu2 is not asked for
    (tmp_path / "stat").write_text(
        "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 100 20 30 900 50 7 7 5 40 0\ncpu1 10 0 0 0 0 0 0 1 0 0\ncpu2 500 0 0 0 0 0 0 0 0 0\nintr 1 2\n"
    )
    write_process(tmp_path, os.getpid(), parent=1, ticks=(10, 5, 3, 2))
    write_process(tmp_path, 1_000_001, parent=os.getpid(), ticks=(20, 0, 0, 0))
    write_process(tmp_path, 1_000_002, parent=1_000_001, ticks=(1, 1, 1, 1), name="a (strange) name")
    write_process(tmp_path, 1_000_003, parent=1, ticks=(6, 0, 0, 0), environment=f"A=1\0ESPALIER_BENCHMARK={os.getpid()}\0")
    write_process(tmp_path, 1_000_004, parent=1_000_003, ticks=(2, 0, 0, 0))
    write_process(tmp_path, 1_000_005, parent=1, ticks=(70, 0, 0, 0), environment="ESPALIER_BENCHMARK=1\0")
    ours = 20 + 20 + 4 + 6 + 2
    assert foreign_seconds(frozenset({0, 1}), tmp_path) == pytest.approx((155 + 11 - ours) * TICK_S)


def write_process(proc: Path, process: int, parent: int, ticks: tuple[int, ...], name: str = "x", environment: str = "") -> None:
    folder = proc / str(process)
    folder.mkdir()
    times = " ".join(map(str, ticks))
    (folder / "stat").write_text(f"{process} ({name}) S {parent} 1 1 0 -1 0 0 0 0 0 {times} 20 0 1 0 77 0 0")
    (folder / "environ").write_text(environment)


def test_a_system_that_does_not_tell_says_nothing(tmp_path: Path) -> None:
    assert foreign_seconds(frozenset({0}), tmp_path) == 0
    assert foreign_seconds(frozenset({0}), tmp_path / "absent") == 0


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs Linux")
@pytest.mark.slow
@pytest.mark.parametrize("program", [WORKER, LEAVING])
def test_what_was_started_works_for_us_while_it_lives_and_after(program: str) -> None:
    before = our_seconds() - time.process_time()
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"done\n"
        assert our_seconds() - time.process_time() - before >= _WORK_S - _ROUNDING_S
        started.communicate(b"\n")
    if program == WORKER:  # nobody waits for an orphan: its work goes with it
        assert our_seconds() - time.process_time() - before >= _WORK_S - _ROUNDING_S
