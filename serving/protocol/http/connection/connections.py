"""All connections over HTTP: a sweep closes those that do not get on, and there are so many at most."""

from __future__ import annotations

import asyncio
import logging
import select
import time
from collections.abc import Callable
from typing import Any, Protocol

from serving.observe.logs import Seldom
from serving.protocol.http.connection.limits import HttpLimits, most_connections
from serving.protocol.http.connection.progress import Phase, Progress
from serving.protocol.memory_budget import MemoryBudget

log = logging.getLogger(__name__)
_MOST_SWEEP_S = 1.0  # between two
_LEAST_SWEEP_S = 0.02
_LOOK_S = 0.1  # between two looks for idle ones where there was none
_LEFT = getattr(select, "POLLRDHUP", 0)  # a connection whose client has said its last; Linux tells


class _Connection(Protocol):
    """What is swept."""

    transport: Any
    progress: Progress

    def check(self, now: float) -> None:
        """Close the connection if it has not got on."""

    def is_deaf(self) -> bool:
        """Return whether nothing is read, so that its end is not heard of."""


class Connections:
    """The connections of one server, all in one event loop. refused: is told which limit has struck. budget: counts unread answers.

    now: the loop's time at the last sweep, exact enough for whoever counts seconds. is_draining: whether the server waits for its end, and
    for nobody who does nothing.
    """

    def __init__(self, limits: HttpLimits, refused: Callable[[str], None], budget: MemoryBudget) -> None:
        self.limits = limits
        self.refused = refused
        self.budget = budget
        self.now = 0.0
        self.is_draining = False
        self._most = limits.connections or most_connections()
        self._open: set[_Connection] = set()
        self._idle: list[_Connection] = []  # the longest last; made when there is no room
        self._look_again = 0.0  # not before: there was none
        self._seldom = Seldom()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Sweep from now on."""
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        pause_s = min(_MOST_SWEEP_S, max(_LEAST_SWEEP_S, self.limits.shortest_s / 4))

        def again() -> None:
            self._timer = loop.call_later(pause_s, again)
            self.now = loop.time()
            self.sweep()

        self._timer = loop.call_later(pause_s, again)

    def end(self) -> None:
        """Sweep no more."""
        if self._timer is not None:
            self._timer.cancel()

    def opened(self, connection: _Connection) -> None:
        """Look after a connection from now on."""
        self._open.add(connection)

    def closed(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._open.discard(connection)

    def sweep(self) -> None:
        """Close what has waited for long enough."""
        deaf = []
        for connection in tuple(self._open):
            connection.check(self.now)
            if connection.is_deaf():
                deaf.append(connection)
        if deaf and _LEFT:
            _close_left(deaf)

    def make_room(self, coming: int) -> bool:
        """Return whether there may be one more beside those open and `coming`; close the one that was idle for longest if need be."""
        if len(self._open) + coming < self._most:
            return True
        self.refused("connections")
        connection = self._longest_idle()
        if connection is None:
            return False
        self.closed(connection)
        connection.transport.abort()
        return True

    def _longest_idle(self) -> _Connection | None:
        """Return the connection that is idle for longest. All are looked at only when those found before are used up."""
        while True:
            while self._idle:
                connection = self._idle.pop()
                if connection in self._open and _is_idle(connection):
                    return connection
            if time.monotonic() < self._look_again:
                return None
            self._idle = sorted(filter(_is_idle, self._open), key=lambda one: one.progress.since, reverse=True)
            if not self._idle:
                self._look_again = time.monotonic() + _LOOK_S

    def note_turned_away(self) -> None:
        """Say that a client found no room."""
        self.say("Connections are turned away: %d are open, and none is idle.", self._most)

    def say(self, line: str, *facts: object) -> None:
        """Log a line that anybody can cause, not too often."""
        if self._seldom.may(line):
            log.warning(line, *facts)


def _is_idle(connection: _Connection) -> bool:
    return connection.progress.phase in (Phase.SILENT, Phase.IDLE)


def _close_left(connections: list[_Connection]) -> None:
    """Close those whose client has gone."""
    poll = select.poll()
    by_file = {one.transport.get_extra_info("socket").fileno(): one for one in connections}
    for file in by_file:
        poll.register(file, _LEFT)
    for file, _ in poll.poll(0):
        by_file[file].transport.close()
