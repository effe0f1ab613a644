"""Threads for decoding and encoding that takes more than a millisecond: beside the event loop, and as long as somebody wants it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from serving.errors import DeadlineExceeded
from serving.process.threads import DaemonPool

Check = Callable[[], None]
"""Called between the pieces of long work; raises what ends it."""
_Result = TypeVar("_Result")
_THREADS = 2  # so that one long body does not keep all others waiting; Python's lock lets no more of them get on


class NotWanted(Exception):
    """Whoever asked for the work has gone; nobody sees this."""


def no_check() -> None:
    """Let work go on to its end."""


def until(deadline: float | None, check: Check) -> Check:
    """Return what raises DeadlineExceeded after `deadline` (time.monotonic; None: never), and what `check` raises before."""
    if deadline is None:
        return check

    def both() -> None:
        check()
        if time.monotonic() > deadline:
            raise DeadlineExceeded

    return both


class Cancellation:
    """Tells one request's work in a thread that nobody wants it any more. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._end: Callable[[], None] | None = None  # guarded by `_lock`

    def cancel(self) -> None:
        """Have the work end at its next check, and end what it waits for."""
        with self._lock:
            self._is_cancelled = True
            if self._end is not None:
                self._end()

    def check(self) -> None:
        """Raise NotWanted when the work is cancelled."""
        if self._is_cancelled:
            raise NotWanted

    @contextlib.contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Have `end`, which returns at once, called when the work is cancelled within the block. Raises NotWanted."""
        with self._lock:
            self.check()
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None
        self.check()


class WorkPool:
    """Runs functions in threads of its own. What is cancelled ends at its next check, and what has not begun does not begin."""

    def __init__(self, threads: int = _THREADS, name: str = "decoding") -> None:
        self._pool = DaemonPool(threads, name)

    async def run(self, work: Callable[[Check], _Result]) -> _Result:
        """Return what `work` returns; it calls what it is given between its pieces. Raises what `work` raises."""
        cancellation = Cancellation()
        try:
            return await asyncio.wrap_future(self._pool.submit(work, cancellation.check))
        finally:
            cancellation.cancel()

    def close(self) -> None:
        """Begin no more work, and do not wait for what is under way."""
        self._pool.shutdown()
