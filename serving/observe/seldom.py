"""What anybody can cause is said, but not every time: a log is for those who read it, and has to fit somewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 10.0
_MOST_KINDS = 1000


class Seldom:
    """Says of each kind of thing whether it may be logged now: once in `every_s` seconds. clock: in seconds."""

    def __init__(self, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._clock = clock
        self._next: dict[str, float] = {}

    def may(self, kind: str) -> bool:
        """Return whether `kind` may be logged; then it may not for a while."""
        now = self._clock()
        if now < self._next.get(kind, now):
            return False
        if len(self._next) >= _MOST_KINDS:
            self._next = {known: when for known, when in self._next.items() if now < when}
        self._next[kind] = now + self._every_s
        return True
