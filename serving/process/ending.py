"""How serving ends in time, whatever its threads still do."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Iterator
from types import FrameType
from typing import NoReturn

log = logging.getLogger(__name__)
LEFT_S = 1.0  # after the grace time: for what is closed then
LOOP_S = 1.0  # after that, for an event loop that has not come back
_CLEAN_S = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def in_time(work: Awaitable[object], end: float, what: str) -> bool:
    """Await `work` until `end` (time.monotonic) and say whether it was done; otherwise cancel it, wait no more, and log `what` it was.

    Raises what it raises.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=max(0.0, end - time.monotonic()))
        if task.done():
            task.result()
            return True
        log.warning("%s did not come to an end in time and was left behind: its threads end with their work.", what)
        return False
    finally:
        task.cancel()


class News:
    """What the main thread waits for: numbers, put by signals or by other threads.

    The system may give a signal to any thread, and then wakes none that waits for a lock: Python's handler would run when the main thread
    has something else to do. So whoever gets it writes to a socket, which the main thread waits for.
    """

    def __init__(self) -> None:
        self._numbers: deque[int] = deque()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    def put(self, number: int) -> None:
        """Have `get` return `number`."""
        self._numbers.append(number)
        self._wake()

    def get(self) -> int:
        """Return the first number; wait until there is one."""
        while not self._numbers:
            self._reader.recv(64)
        return self._numbers.popleft()

    @contextlib.contextmanager
    def of_signals(self) -> Iterator[None]:
        """Put the number of the first SIGTERM or SIGINT; a second one ends the process at once, with 128 + its number.

        To be called in the main thread, where the handlers run; it must not wait for anything but `get`, or only for moments.
        """
        numbers: list[int] = []

        def handle(number: int, frame: FrameType | None) -> None:
            if numbers:
                end_process(128 + number)  # as a shell reports a process that the signal has killed
            numbers.append(number)
            self.put(number)

        before = {number: signal.signal(number, handle) for number in _SIGNALS}
        waker = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(waker)
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Let go of the socket."""
        self._reader.close()
        self._writer.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes already; closed: nobody waits
            self._writer.send(b"\0")


@contextlib.contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """End the process with 1, showing what its threads do, if the block takes longer: also where one keeps Python's lock all the time."""
    with contextlib.suppress(ValueError, OSError, AttributeError, RuntimeError):  # no stderr: then without
        faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def end_process(code: int) -> NoReturn:
    """End this process now: threads are not waited for; what is registered with `atexit` gets half a second."""
    cleaning = threading.Thread(target=_clean_up, daemon=True)
    cleaning.start()
    cleaning.join(_CLEAN_S)
    os._exit(code)


def _clean_up() -> None:
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
