"""Threads that turn image files into rows. Whoever waits for one holds a file and no picture, and not everybody may wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import Self

from serving.engines.cores import available_cores
from serving.errors import QueueFull
from serving.image_tasks import CheckRoom, Rows
from serving.preprocessing import Preprocessing
from serving.protocol.images import ImageLimits, Picture, count_pixels, make_rows, open_pictures
from serving.protocol.multipart import is_form, read_files
from serving.threads import DaemonPool

_MOST_THREADS = 8  # each may hold a whole picture; more would decode faster than one event loop can take the rows


class ImageWorkers:
    """Decodes, resizes and crops images: one job for each request, at most `threads` jobs at a time (None: the cores, at most 8).

    Requests that find all threads busy wait in the order in which they came, until `limits.max_waiting_pixels` wait. To be used from one
    event loop; closing it lets go of the threads.
    """

    def __init__(self, limits: ImageLimits = ImageLimits(), threads: int | None = None) -> None:  # noqa: B008 (frozen)
        self.limits = limits
        threads = threads or min(available_cores(), _MOST_THREADS)
        # One more than jobs: it reads headers while the others are busy. Never on the event loop: a hostile header takes seconds.
        self._pool = DaemonPool(threads + 1, "images")
        self._free = asyncio.Semaphore(threads)
        self._waiting_pixels = 0

    async def rows(self, open_files: Callable[[], list[Picture]], ways: Sequence[Preprocessing]) -> Rows:
        """Return what `ways` make of the pictures that `open_files`, which is called in a thread, returns.

        Raises QueueFull, NotAnImage, and what `open_files` raises. When it is cancelled while it waits, nothing is decoded.
        """
        if not self._free.locked():
            await self._free.acquire()  # at once
            return await self._submit(lambda: make_rows(open_files(), ways))
        # What is to wait is measured first. Where a thread is free, that would only be one change of threads more.
        pictures = await asyncio.get_running_loop().run_in_executor(self._pool, open_files)
        await self._wait_for_thread(count_pixels(pictures, ways))
        return await self._submit(partial(make_rows, pictures, ways))

    async def _wait_for_thread(self, pixels: int) -> None:
        limit = self.limits.max_waiting_pixels
        if self._waiting_pixels and self._waiting_pixels + pixels > limit:
            raise QueueFull(self._waiting_pixels, limit, "pixels of images")
        self._waiting_pixels += pixels
        try:
            await self._free.acquire()
        finally:
            self._waiting_pixels -= pixels

    def _submit(self, work: Callable[[], Rows]) -> asyncio.Future[Rows]:
        loop = asyncio.get_running_loop()
        job: Future[Rows] = self._pool.submit(work)
        # Whoever gives up does not stop the thread, which is free only when its work is done.
        job.add_done_callback(lambda _: self._release(loop))
        return asyncio.wrap_future(job)

    def _release(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(self._free.release)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown()


class SentImages:
    """The images in a request's body: one file, or a form with several. names: of a form's files, when they have been read."""

    def __init__(self, workers: ImageWorkers, body: bytes, content_type: str) -> None:
        self.names: Sequence[str] = ()
        self.is_form = is_form(content_type)
        self._workers = workers
        self._body = body
        self._content_type = content_type

    async def prepare(self, ways: Sequence[Preprocessing], check_room: CheckRoom) -> Rows:
        """Return what each of `ways` makes of the images. Raises InvalidRequest, BodyTooLarge, QueueFull."""
        return await self._workers.rows(partial(self._open, ways, check_room), ways)

    def _open(self, ways: Sequence[Preprocessing], check_room: CheckRoom) -> list[Picture]:
        limits = self._workers.limits
        files = [("The body", "", self._body)]
        if self.is_form:
            found = read_files(self._body, self._content_type, limits.max_files, limits.max_bytes)
            self.names = [file.name for file in found]
            named = [(f"file {number} ({file.name!r})", file.data) for number, file in enumerate(found, 1)]
            files = [(f"F{name[1:]}", f" in {name}", data) for name, data in named]
        pictures = open_pictures(files, ways, limits)
        check_room(len(pictures))
        return pictures
