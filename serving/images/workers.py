"""Turns image files into rows, in threads, or processes where it is costly. Who waits holds a file and no picture, and not all may."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from contract.preprocessing import Preprocessing
from contract.system import available_cores
from serving.errors import QueueFull
from serving.images.decode import ImageLimits, Picture, count_pixels, make_rows
from serving.images.helpers import IDLE_S, Helpers
from serving.images.tasks import ImageRows
from serving.process.threads import DaemonPool
from serving.process.work_pool import Cancellation, Check

_OpenFiles = Callable[[Check], list[Picture]]
_Result = TypeVar("_Result")
_MOST_THREADS = 8  # each may hold a whole picture; more would decode faster than one event loop can take the rows
_MOST_PROCESSES = 2  # the costly pictures do not get all cores


class ImageWorkers:
    """Decodes, resizes and crops images: one job for each request, at most `threads` jobs at a time (None: the cores, at most 8).

    A request with a picture that is heavy (`Picture.is_heavy`) goes to a process in place of a thread, of which there are two at most:
    whatever it costs, it keeps no thread from the others, and ends when it is cancelled. Requests that find all threads (or processes)
    busy wait in the order in which they came, until `limits.max_waiting_pixels` wait. To be used from one event loop; closing it ends the
    processes and lets go of the threads. idle_s: after how many seconds a process ends for which there was nothing to do.
    """

    def __init__(
        self,
        limits: ImageLimits = ImageLimits(),  # noqa: B008 (frozen)
        threads: int | None = None,
        idle_s: float = IDLE_S,
    ) -> None:
        self.limits = limits
        self._idle_s = idle_s
        threads = threads or min(available_cores(), _MOST_THREADS)
        processes = min(threads, _MOST_PROCESSES)
        # One more than jobs: it reads headers while the others are busy. Never on the event loop: a hostile header takes seconds.
        self._pool = DaemonPool(threads + processes + 1, "images")
        self._helpers = Helpers(limits)
        self._light = _Lane(threads, limits.max_waiting_pixels)
        self._heavy = _Lane(processes, limits.max_waiting_pixels)
        self._running: set[Cancellation] = set()
        self._end_idle: asyncio.TimerHandle | None = None

    @property
    def waiting_pixels(self) -> int:
        """Return the pixels of images that wait, before and after they are resized."""
        return self._light.waiting_pixels + self._heavy.waiting_pixels

    async def rows(self, open_files: _OpenFiles, ways: Sequence[Preprocessing]) -> ImageRows:
        """Return what `ways` make of the pictures that `open_files`, which is called in a thread, returns.

        Raises QueueFull, NotAnImage, and what `open_files` raises. When it is cancelled, what has not begun does not begin, and what has
        ends at its next step: in a thread before the next 64 KiB of a file, in a process at once.
        """
        cancellation = Cancellation()
        self._running.add(cancellation)
        try:
            made = await self._open(open_files, ways, cancellation)
            return made if not isinstance(made, list) else await self._decode(made, ways, cancellation)
        finally:
            self._running.discard(cancellation)
            cancellation.cancel()

    async def _open(
        self, open_files: _OpenFiles, ways: Sequence[Preprocessing], cancellation: Cancellation
    ) -> list[Picture] | ImageRows:
        """Return the pictures; or at once their rows, where a thread is free and they are light: that is one change of threads less."""
        check = cancellation.check
        if not self._light.is_free:
            return await asyncio.get_running_loop().run_in_executor(self._pool, open_files, check)

        def work() -> list[Picture] | ImageRows:
            pictures = open_files(check)
            return pictures if self._are_heavy(pictures) else make_rows(pictures, ways, check)

        await self._light.enter(0)
        return await self._submit(self._light, work)

    async def _decode(self, pictures: list[Picture], ways: Sequence[Preprocessing], cancellation: Cancellation) -> ImageRows:
        pixels = count_pixels(pictures, ways)
        if not self._are_heavy(pictures):
            await self._light.enter(pixels)
            return await self._submit(self._light, partial(make_rows, pictures, ways, cancellation.check))
        await self._heavy.enter(pixels)
        try:
            return await self._submit(self._heavy, partial(self._helpers.rows, pictures, ways, cancellation))
        finally:
            self._end_helpers_later()

    def _are_heavy(self, pictures: Sequence[Picture]) -> bool:
        return any(picture.is_heavy(self.limits) for picture in pictures)

    def _submit(self, lane: _Lane, work: Callable[[], _Result]) -> asyncio.Future[_Result]:
        loop = asyncio.get_running_loop()
        job: Future[_Result] = self._pool.submit(work)
        # Whoever gives up does not stop the thread, which is free only when its work is done.
        job.add_done_callback(lambda _: _call_in(loop, lane.leave))
        return asyncio.wrap_future(job)

    def _end_helpers_later(self) -> None:
        if self._end_idle is not None:
            self._end_idle.cancel()
        self._end_idle = asyncio.get_running_loop().call_later(
            self._idle_s, self._pool.submit, self._helpers.end_idle, self._idle_s
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._end_idle is not None:
            self._end_idle.cancel()
        for cancellation in self._running:
            cancellation.cancel()
        self._helpers.close()
        self._pool.shutdown()


class _Lane:
    """So many jobs at a time; others wait in order, up to `limit_pixels` of them, or one of any size. Of one event loop."""

    def __init__(self, jobs: int, limit_pixels: int) -> None:
        self.waiting_pixels = 0
        self._free = asyncio.Semaphore(jobs)
        self._limit_pixels = limit_pixels

    @property
    def is_free(self) -> bool:
        """Whether nobody would wait."""
        return not self._free.locked()

    async def enter(self, pixels: int) -> None:
        """Wait until a job with so many pixels may begin; whoever has it calls `leave`. Raises QueueFull."""
        if self.is_free:
            await self._free.acquire()  # at once
            return
        if self.waiting_pixels and self.waiting_pixels + pixels > self._limit_pixels:
            raise QueueFull(self.waiting_pixels, self._limit_pixels, "pixels of images")
        self.waiting_pixels += pixels
        try:
            await self._free.acquire()
        finally:
            self.waiting_pixels -= pixels

    def leave(self) -> None:
        """Let the next one begin."""
        self._free.release()


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(function)
