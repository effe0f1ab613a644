"""Costly pictures are decoded beside the others, in processes that end when nobody wants them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from contract.preprocessing import Preprocessing
from serving.errors import NotAnImage, QueueFull
from serving.images.decode import ImageLimits, Picture, make_rows, open_pictures
from serving.images.helpers import Helper, Helpers
from serving.images.workers import ImageWorkers
from serving.process.work_pool import Cancellation, Check, NotWanted
from tests.serving.pictures import FORMATS, file, many_scans, many_tables, picture

WAYS = [Preprocessing(8, 8), Preprocessing(6, 5, interpolation="bilinear", crop_fraction=0.8)]
LIMITS = ImageLimits(max_pixels=170_000_000)
HARD = many_scans(4000, 120)  # some seconds of a decoder
EASY = file("PNG", picture(20, 10))


def opened(*files: bytes) -> list[Picture]:
    return open_pictures([("File", " in file", data) for data in files], WAYS, LIMITS)


def opening(*files: bytes) -> Callable[[Check], list[Picture]]:
    return lambda _: opened(*files)


def children(parent: int | str = "self") -> set[int]:
    """Return the processes that decode for us, or for process `parent`."""
    found = set()
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread or process that has just ended
            pids = [int(pid) for pid in task.read_text().split()]
            found |= {pid for pid in pids if b"images.process" in Path(f"/proc/{pid}/cmdline").read_bytes()}
    return found


@pytest.fixture(autouse=True)
def without_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of other tests keep an idle process for half a minute."""
    found, others = children, children()
    monkeypatch.setattr(sys.modules[__name__], "children", lambda parent="self": found(parent) - others)


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it has never come true")


def run(work: Callable[[ImageWorkers], Awaitable[None]], limits: ImageLimits = LIMITS) -> None:
    async def inside() -> None:
        with ImageWorkers(limits, threads=1) as workers:
            await work(workers)
        await eventually(lambda: not children())

    asyncio.run(inside())


async def begun(workers: ImageWorkers, data: bytes = HARD) -> asyncio.Future[Any]:
    """Return the answer for `data`, which a process is decoding."""
    answer = asyncio.ensure_future(workers.rows(opening(data), WAYS))
    await eventually(lambda: any(processor_s(pid) > 0.5 for pid in children()))
    return answer


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_process_makes_the_same_rows() -> None:
    files = [file(kind, picture(40, 30, mode), **options) for kind, mode, options in FORMATS]
    helpers = Helpers(LIMITS)
    found = helpers.rows(opened(*files), WAYS, Cancellation())
    for way, rows in make_rows(opened(*files), WAYS).items():
        np.testing.assert_array_equal(found[way], rows)
    helpers.close()


def test_a_process_knows_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ESPALIER_ADMIN_TOKEN", "sesame")
    helper = Helper()
    try:
        assert b"sesame" not in Path(f"/proc/{helper.pid}/environ").read_bytes()
    finally:
        helper.close()


def test_a_process_is_kept_also_after_a_broken_picture_and_ends_when_nobody_has_wanted_it_for_a_while() -> None:
    helpers = Helpers(LIMITS)
    helpers.rows(opened(EASY), WAYS, Cancellation())
    before = children()
    with pytest.raises(NotAnImage, match="The PNG image in file is damaged or truncated"):
        helpers.rows(opened(file("PNG", picture(64, 64))[:200]), WAYS, Cancellation())
    helpers.rows(opened(EASY), WAYS, Cancellation())
    helpers.end_idle(60.0)
    assert len(before) == 1
    assert children() == before
    helpers.end_idle(0.0)
    assert not children()
    helpers.close()
    with pytest.raises(NotWanted):
        helpers.rows(opened(EASY), WAYS, Cancellation())


def test_workers_end_a_process_that_has_had_nothing_to_do() -> None:
    async def inside() -> None:
        with ImageWorkers(LIMITS, threads=1, idle_s=0.2) as workers:
            await workers.rows(opening(file("WEBP", picture(300, 300), lossless=True)), WAYS)
            assert len(children()) == 1
            await eventually(lambda: not children())

    asyncio.run(inside())


def test_a_process_that_fails_is_a_sentence_and_another_one_follows() -> None:
    async def work(workers: ImageWorkers) -> None:
        for number, words in ((signal.SIGSEGV, "makes its decoder fail"), (signal.SIGXCPU, "more memory or time to decode")):
            answer = await begun(workers)
            os.kill(children().pop(), number)
            with pytest.raises(NotAnImage, match=words):
                await answer

    run(work)


def test_one_that_has_gone_while_nobody_wanted_it_is_nobodys_trouble() -> None:
    helpers = Helpers(LIMITS)
    helpers.rows(opened(EASY), WAYS, Cancellation())
    os.kill(pid := children().pop(), signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it has gone, and nobody has heard of it
    helpers.rows(opened(EASY), WAYS, Cancellation())
    assert pid not in children()
    helpers.close()


def test_whoever_goes_ends_the_process_that_decodes() -> None:
    async def work(workers: ImageWorkers) -> None:
        answer = await begun(workers)
        answer.cancel()
        await eventually(lambda: not children())
        assert (await workers.rows(opening(EASY), WAYS)).keys() == set(WAYS)

    run(work)


def test_closing_ends_it_too() -> None:
    async def inside() -> None:
        with ImageWorkers(LIMITS, threads=1) as workers:
            answer = await begun(workers)
        await eventually(lambda: not children())
        with pytest.raises(NotWanted):
            await answer

    asyncio.run(inside())


def test_closing_ends_one_that_has_nothing_to_do() -> None:
    async def inside() -> None:
        with ImageWorkers(LIMITS, threads=1) as workers:
            await workers.rows(opening(file("WEBP", picture(300, 300), lossless=True)), WAYS)
            assert len(children()) == 1
        assert not children()
        assert workers.waiting_pixels == 0

    asyncio.run(inside())


def test_costly_pictures_keep_no_thread_from_the_others_and_wait_in_a_line_of_their_own() -> None:
    async def work(workers: ImageWorkers) -> None:
        first = await begun(workers)
        second = asyncio.ensure_future(workers.rows(opening(HARD), WAYS))
        await eventually(lambda: workers.waiting_pixels > 16_000_000)
        with pytest.raises(QueueFull, match="pixels of images are waiting"):
            await workers.rows(opening(HARD), WAYS)
        for _ in range(3):
            assert (await workers.rows(opening(EASY), WAYS))[WAYS[0]].shape == (1, 8, 8, 3)
        assert not first.done()
        assert len(children()) == 1
        second.cancel()
        first.cancel()
        await asyncio.wait([first, second])
        assert workers.waiting_pixels == 0

    run(work, replace(LIMITS, max_waiting_pixels=20_000_000))


def test_what_is_under_way_in_a_thread_ends_at_its_next_step() -> None:
    stopped = Cancellation()
    reads = []

    def check() -> None:
        reads.append(1)
        if len(reads) == 30:
            stopped.cancel()
        stopped.check()

    waiting = open_pictures([("It", "", file("BMP", picture(1000, 1000)))] * 2, WAYS, LIMITS, check)
    began = len(reads)
    with pytest.raises(NotWanted):
        make_rows(waiting, WAYS, check)
    assert began < 20
    assert (len(reads), len(waiting)) == (31, 1)  # the last is when it is seen why


def test_what_has_not_begun_when_it_is_cancelled_never_does() -> None:
    async def work(workers: ImageWorkers) -> None:
        gate, asked = threading.Event(), threading.Event()

        def open_late(check: Check) -> list[Picture]:
            asked.set()
            assert gate.wait(20)
            check()
            raise AssertionError("nobody waits for this")

        answer = asyncio.ensure_future(workers.rows(open_late, WAYS))
        await asyncio.to_thread(asked.wait, 20)
        answer.cancel()
        await asyncio.wait([answer])
        gate.set()
        assert (await workers.rows(opening(EASY), WAYS)).keys() == set(WAYS)

    run(work)


LITTLE = """
import sys
import serving.images.process as process
from contract.preprocessing import Preprocessing
process._PIXEL_BYTES, process._SPARE_BYTES = 1, 0
job = {"ways": [Preprocessing(8, 8).to_json()], "where": "", "limits": {}}
print(process._answer(job, sys.stdin.buffer.read()))
"""


def test_a_process_may_take_no_more_memory_than_a_picture_of_this_size_needs() -> None:
    data = file("PNG", Image.new("RGB", (3000, 3000)))
    done = subprocess.run([sys.executable, "-c", LITTLE], input=data, capture_output=True, timeout=60, check=True)
    assert b"takes more memory or time to decode than its size explains" in done.stdout


def test_tables_that_no_picture_needs_are_not_made() -> None:
    helpers = Helpers(LIMITS)
    helpers.rows(opened(many_tables(64)), WAYS, Cancellation())
    (pid,) = children()
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    with pytest.raises(NotAnImage):
        helpers.rows(opened(many_tables(1024)), WAYS, Cancellation())
    assert children() == {pid}
    assert address_space(pid) == address_space(os.getpid())  # the next file may be larger
    assert kilobytes(pid, "VmHWM") - kilobytes(pid, "VmRSS") < 2 * 12 * 1024  # 380 MB without the limit
    helpers.close()


def address_space(pid: int) -> list[str]:
    return [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max address space")]


def kilobytes(pid: int, name: str) -> int:
    return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name))


def test_a_process_ends_with_whoever_has_begun_it() -> None:
    script = "import sys, time; from serving.images.helpers import Helper; print(Helper().pid, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    while not has_ended(pid):
        time.sleep(0.01)
