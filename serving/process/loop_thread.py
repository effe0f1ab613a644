"""An event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

_WAIT_S = 0.05
_JOIN_S = 0.5  # for what a loop still does when all is closed


class LoopThread:
    """Starts something in an event loop of its own, keeps the loop running, and closes it (`close`) when it is told to.

    Used from one thread, which waits for it only as long as it says, and in a way that lets signals be handled.
    """

    def __init__(self, start: Callable[[], Coroutine[Any, Any, None]], close: Callable[[], Awaitable[None]], name: str) -> None:
        self._start = start
        self._close = close
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._can_stop = threading.Event()
        self._settled = threading.Event()
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._tell: Callable[[], None] = lambda: None
        self._stop: Callable[[], None] = lambda: None

    @property
    def is_ready(self) -> bool:
        """Whether `start` has come to a good end."""
        return self._settled.is_set() and self._error is None

    @property
    def is_running(self) -> bool:
        """Whether the thread is there."""
        return self._thread.is_alive()

    def begin(self, settled: Callable[[], None] = lambda: None) -> None:
        """Start the thread; `settled` is called in it when `start` has ended, well or not."""
        self._tell = settled
        self._thread.start()

    def wait_until_ready(self) -> None:
        """Wait until `start` has ended. Raises what it raises."""
        self._settled.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error

    def finish(self, seconds: float) -> bool:
        """Have it closed; say whether it was within `seconds`. Raises what has ended it, if that was an error."""
        end = time.monotonic() + seconds
        self._can_stop.wait(seconds)
        self._stop()
        # In short waits: a signal that another thread gets does not end one.
        while not (has_ended := self._ended.wait(_WAIT_S)) and time.monotonic() < end:
            pass
        if has_ended:
            self._thread.join(_JOIN_S)
        if has_ended and self._error is not None:
            raise self._error
        return has_ended

    def _run(self) -> None:
        try:
            _run_loop(self._work())
        except BaseException as error:
            self._error = error
        finally:
            self._can_stop.set()
            self._settle()
            self._ended.set()

    def _settle(self) -> None:
        if not self._settled.is_set():
            self._settled.set()
            self._tell()

    async def _work(self) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: _call_if_open(loop, stop.set)
        self._can_stop.set()
        starting = asyncio.create_task(self._start())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()  # told to stop while still loading
            await asyncio.wait((starting,))
            return
        await starting
        try:
            self._settle()
            await stopping
        finally:
            await self._close()
            self._ended.set()  # what the loop does after it, it does for nobody


def _call_if_open(loop: asyncio.AbstractEventLoop, action: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: it has stopped by itself
        loop.call_soon_threadsafe(action)


def _run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` on uvloop where there is one."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        asyncio.run(work)
        return
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(work)
