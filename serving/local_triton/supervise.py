"""Keeps a local Triton in the foreground until a signal ends it, as a command does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from serving.local_triton.errors import TritonFailed
from serving.local_triton.local import LocalTriton

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signalled(BaseException):
    """A signal has come; like KeyboardInterrupt no error, so that nothing on the way takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGINT raise Signalled in the main thread, from which this must be called."""

    def raise_signalled(number: int, frame: FrameType | None) -> None:
        raise Signalled(number)

    before = {number: signal.signal(number, raise_signalled) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_until_signalled(triton: LocalTriton, ready: Callable[[], None]) -> None:
    """Start `triton`, call `ready`, and wait until a signal stops it, after which what is in flight is finished.

    A signal before it is ready, and a second one, end it at once and are raised as Signalled. Raises TritonFailed when it ends by
    itself: it is not started again, because why it ended is for a person to find out; systemd and Kubernetes restart what should be.
    """
    with signals_raise():
        triton.start()
        try:
            ready()
            code = triton.wait()
        except Signalled:
            triton.stop()
            return
        finally:
            triton.kill()
        raise TritonFailed(f"ended by itself (exit code {code})", triton.cause())
