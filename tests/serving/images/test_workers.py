"""Images are decoded by few threads, in order; what waits for them is small, and is not everything that comes."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import SupportsIndex

import numpy as np
import pytest
from PIL import Image

from contract.preprocessing import Preprocessing
from serving.errors import NotAnImage, QueueFull
from serving.images.decode import ImageLimits, Picture, count_pixels, decode_image, make_rows, open_pictures
from serving.images.tasks import ImageRows
from serving.images.workers import ImageWorkers
from serving.process.work_pool import Check

WAYS = [Preprocessing(8, 8), Preprocessing(6, 5, interpolation="bilinear", crop_fraction=0.8)]
LIMITS = ImageLimits()


def file(width: int = 20, height: int = 10, mode: str = "RGB", seed: int = 0) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


def opened(*files: bytes) -> list[Picture]:
    return open_pictures([("File", "", data) for data in files], WAYS, LIMITS)


PIXELS = count_pixels(opened(file()), WAYS)


class Gate:
    """The first job, whose file is opened when the gate is."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.began = threading.Event()

    def open(self, check: Check) -> list[Picture]:
        self.began.set()
        assert self.opened.wait(20)
        return opened(file())


def run(work: Callable[[ImageWorkers, Gate], Awaitable[None]], limit: int = LIMITS.max_waiting_pixels, threads: int = 1) -> None:
    """Do `work` beside workers whose only thread is at a gate."""

    async def inside() -> None:
        gate = Gate()
        with ImageWorkers(ImageLimits(max_waiting_pixels=limit), threads) as workers:
            first = asyncio.ensure_future(workers.rows(gate.open, WAYS))
            await asyncio.to_thread(gate.began.wait, 20)
            try:
                await work(workers, gate)
            finally:
                gate.opened.set()
                with suppress(asyncio.CancelledError):
                    await first

    asyncio.run(inside())


async def settled(workers: ImageWorkers, *pictures: list[Picture]) -> list[asyncio.Future[ImageRows]]:
    """Return the answers for `pictures`, of whom each that may has begun to wait, in this order."""
    answers: list[asyncio.Future[ImageRows]] = []
    for each in pictures:
        before = workers.waiting_pixels
        answers.append(asyncio.ensure_future(workers.rows(lambda _, each=each: each, WAYS)))  # type: ignore[misc]
        while workers.waiting_pixels == before and not answers[-1].done():
            await asyncio.sleep(0.001)
    return answers


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_rows_are_what_each_way_makes_of_each_file(mode: str) -> None:
    buffers = [io.BytesIO(), io.BytesIO()]
    for buffer, size in zip(buffers, [(20, 10), (7, 31)], strict=True):
        Image.open(io.BytesIO(file(*size))).convert(mode).save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    files = [buffer.getvalue() for buffer in buffers]
    rows = make_rows(opened(*files), WAYS)
    assert list(rows) == WAYS
    for way, found in rows.items():
        np.testing.assert_array_equal(found, [way(decode_image(data, LIMITS)) for data in files])


class Noted(list[Picture]):
    """Pictures that note, in `order`, when they are taken out to be decoded."""

    def __init__(self, pictures: list[Picture], order: list[int], number: int) -> None:
        super().__init__(pictures)
        self._order = order
        self._number = number

    def pop(self, index: SupportsIndex = -1, /) -> Picture:
        self._order.append(self._number)
        return super().pop(index)


def test_what_waits_is_not_decoded_and_is_then_in_order() -> None:
    async def work(workers: ImageWorkers, gate: Gate) -> None:
        order: list[int] = []
        waiting = [Noted(opened(file(seed=seed)), order, seed) for seed in (1, 2)]
        answers = await settled(workers, *waiting)
        assert order == []
        gate.opened.set()
        for seed, answer in enumerate(answers, 1):
            np.testing.assert_array_equal((await answer)[WAYS[0]], make_rows(opened(file(seed=seed)), WAYS)[WAYS[0]])
        assert order == [1, 2]
        assert waiting == [[], []]  # pictures are let go of

    run(work)


def test_more_than_the_limit_does_not_wait() -> None:
    async def work(workers: ImageWorkers, gate: Gate) -> None:
        large = opened(file(90, 90))  # alone over the limit, but nothing waits
        first, second = await settled(workers, large, opened(file()))
        with pytest.raises(QueueFull, match=r"\d+ pixels of images are waiting and 1000 is the limit"):
            await second
        gate.opened.set()
        assert (await first)[WAYS[0]].shape == (1, 8, 8, 3)
        assert (await workers.rows(lambda _: opened(file()), WAYS))[WAYS[1]].shape == (1, 6, 5, 3)

    run(work, limit=1000)


def test_who_gives_up_waiting_makes_room() -> None:
    async def work(workers: ImageWorkers, gate: Gate) -> None:
        gone = opened(file())
        (first,) = await settled(workers, gone)
        first.cancel()
        await asyncio.wait([first])
        (second, third) = await settled(workers, opened(file()), opened(file()))
        gate.opened.set()
        await asyncio.wait([second, third])
        assert (second.exception(), type(third.exception())) == (None, QueueFull)
        assert len(gone) == 1  # nobody took it out to decode it

    run(work, limit=2 * PIXELS - 1)


def test_a_thread_is_free_when_its_work_is_done_and_not_when_nobody_waits_for_it() -> None:
    async def inside() -> None:
        gate = Gate()
        with ImageWorkers(threads=1) as workers:
            first = asyncio.ensure_future(workers.rows(gate.open, WAYS))
            await asyncio.to_thread(gate.began.wait, 20)
            first.cancel()
            (second,) = await settled(workers, opened(file()))
            assert not second.done()
            gate.opened.set()
            assert (await second)[WAYS[0]].shape == (1, 8, 8, 3)

    asyncio.run(inside())


def test_a_file_that_is_none_leaves_the_thread_to_others() -> None:
    async def work(workers: ImageWorkers, gate: Gate) -> None:
        broken = file(64, 64)[:200]
        answers = await settled(workers, opened(broken), opened(file()))
        gate.opened.set()
        with pytest.raises(NotAnImage, match="damaged or truncated"):
            await answers[0]
        assert (await answers[1])[WAYS[0]].shape == (1, 8, 8, 3)
        with pytest.raises(NotAnImage, match="is not an image"):
            await workers.rows(lambda _: opened(b"x"), WAYS)
        assert (await workers.rows(lambda _: opened(file()), WAYS))[WAYS[0]].shape == (1, 8, 8, 3)

    run(work)
