"""The deploys of late, for whoever looks."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from serving.observe.events import NullObserver

MOST_DEPLOYS = 50


@dataclass(frozen=True)
class Deploy:
    """A load or unload that is over. number: counts up from 1. time_ms: since 1970. version: that was loaded or unloaded; "": unknown.

    Why one failed is told to whoever asked for it, and to the log.
    """

    number: int
    time_ms: int
    action: str
    task: str
    version: str
    ok: bool
    seconds: float


class RecentDeploys(NullObserver):
    """Remembers the last MOST_DEPLOYS of a server. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._kept: deque[Deploy] = deque(maxlen=MOST_DEPLOYS)

    def deployed(self, task: str, seconds: float, ok: bool, action: str = "load", version: str = "") -> None:
        """Remember a deploy."""
        with self._lock:
            self._number += 1
            self._kept.append(Deploy(self._number, time.time_ns() // 1_000_000, action, task, version, ok, round(seconds, 3)))

    def newest_first(self) -> Sequence[Deploy]:
        """Return what is remembered."""
        with self._lock:
            return tuple(reversed(self._kept))
