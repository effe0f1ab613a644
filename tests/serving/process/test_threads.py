"""Threads that hold up nobody's end."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, wait
from pathlib import Path

import pytest

import serving
from serving.process.threads import DaemonPool, at_work, to_thread

ROOT = Path(__file__).parents[3]


def threads_named(name: str) -> int:
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


def test_jobs_are_done_in_order_by_as_many_threads_as_there_may_be() -> None:
    pool = DaemonPool(2, "few")
    gate, done = threading.Event(), []
    busy = [pool.submit(gate.wait, 20) for _ in range(2)]
    waiting = [pool.submit(done.append, number) for number in range(5)]
    assert threads_named("few-") == 2
    assert set(at_work()) >= {"few-0", "few-1"}
    gate.set()
    for job in (*busy, *waiting):
        job.result(20)
    assert sorted(done) == list(range(5))
    assert threads_named("few-") == 2
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result(20)
    assert not [name for name in at_work() if name.startswith("few-")]


def test_a_thread_that_is_idle_is_used_again() -> None:
    pool = DaemonPool(8, "again")
    for _ in range(5):
        pool.submit(int).result(20)
        while not pool._idle._value:  # until it waits again
            time.sleep(0.001)
    assert threads_named("again-") == 1


def test_who_is_closed_drops_what_has_not_begun_and_waits_for_nobody() -> None:
    pool = DaemonPool(1, "closed")
    gate = threading.Event()
    working, waiting = pool.submit(gate.wait, 20), pool.submit(int)
    while not working.running():
        time.sleep(0.001)
    pool.shutdown()
    pool.shutdown()
    with pytest.raises(CancelledError):
        waiting.result(20)
    assert wait([waiting], timeout=20).done == {waiting}  # somebody may wait for all that was asked for
    with pytest.raises(RuntimeError, match="'closed' take no more work"):
        pool.submit(int)
    gate.set()
    assert working.result(20)


def test_threads_go_with_their_pool() -> None:
    pool = DaemonPool(3, "gone")
    pool.submit(int).result(20)
    del pool
    gc.collect()
    for _ in range(1000):
        if not threads_named("gone-"):
            return
        time.sleep(0.01)
    pytest.fail("a thread waits for work that cannot come")


def test_a_process_does_not_wait_for_them() -> None:
    code = "import time; from serving.process.threads import DaemonPool; DaemonPool(1, 'x').submit(time.sleep, 600)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0


def test_serving_has_no_threads_that_its_end_would_wait_for() -> None:
    files = [file for file in Path(serving.__file__).parent.rglob("*.py") if file.name != "threads.py"]
    assert len(files) > 100
    for name in ("asyncio.to_thread", "ThreadPoolExecutor", "run_in_executor(None"):
        assert [str(file) for file in files if name in file.read_text()] == []


def test_the_context_goes_with_the_work() -> None:
    asked = contextvars.ContextVar("asked", default="")

    async def ask() -> str:
        asked.set("it")
        return await to_thread(asked.get)

    assert asyncio.run(ask()) == "it"
