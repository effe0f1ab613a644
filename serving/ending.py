"""How serving ends in time, whatever its threads still do."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
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


@contextlib.contextmanager
def signals_call(stop: Callable[[int], None]) -> Iterator[None]:
    """Let the first SIGTERM or SIGINT call `stop` with its number, and a second one end the process at once, with 128 + its number.

    To be called in the main thread, which must not wait for anything that signals do not interrupt: the handlers run there.
    """
    numbers: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if numbers:
            end_process(128 + number)  # as a shell reports a process that the signal has killed
        numbers.append(number)
        stop(number)

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
