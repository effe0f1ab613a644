"""Tells work in a thread that nobody wants it any more."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from serving.process.work_pool import NotWanted


class Cancellation:
    """Of one request's work. May be used from any thread."""

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
