"""How far a connection has come, and since when: what a sweep over all of them looks at, in place of timers of their own."""

from __future__ import annotations

from enum import Enum, auto

from contract.errors import EspalierError
from serving.errors import BodyStalled, BodyTooSlow, HeadStalled
from serving.protocol.http.connection.limits import HttpLimits

_LINGER_S = 2.0  # for what a client that was refused still sends; closed at once, the connection would take the refusal with it


class Phase(Enum):
    """What the server waits for."""

    SILENT = auto()  # the first byte
    IDLE = auto()  # the next request
    HEAD = auto()  # the rest of a head
    BODY = auto()  # the rest of a body
    ANSWER = auto()  # its own answer
    LINGER = auto()  # the end of a connection that was refused


class Progress:
    """The phase of a connection. Times are those of the loop, as of the last sweep.

    since: the phase began, or the client was last waited for. moved: the last byte came. received: bytes in this phase. written: the last
    byte of an answer was taken, while `unread` bytes of it wait.
    """

    __slots__ = ("moved", "phase", "received", "since", "unread", "written")

    def __init__(self, now: float) -> None:
        self.unread = 0
        self.written = now
        self.enter(Phase.SILENT, now)

    def enter(self, phase: Phase, now: float) -> None:
        """Begin a phase."""
        self.phase = phase
        self.since = self.moved = now
        self.received = 0

    def is_unread(self, unread: int, now: float, most_s: float) -> bool:
        """Return whether nothing has been taken, for longer than `most_s`, of the `unread` bytes that wait."""
        if not unread or unread != self.unread:
            self.unread, self.written = unread, now
        return now - self.written > most_s

    def restart(self, now: float) -> None:
        """Measure the client from now on: before, it was the server that did not read."""
        self.since = self.moved = now
        self.received = 0

    def lateness(self, limits: HttpLimits, now: float, most_pause_s: float) -> EspalierError | None:
        """Return what is wrong with a head or a body that is not there yet. most_pause_s: of a body."""
        took_s = now - self.since
        if self.phase is Phase.HEAD and took_s > limits.head_s:
            return HeadStalled(limits.head_s)
        if self.phase is not Phase.BODY:
            return None
        if now - self.moved > most_pause_s:
            return BodyStalled(most_pause_s)
        if took_s > limits.body_s and self.received < limits.body_rate * took_s:
            return BodyTooSlow(limits.body_rate)
        return None

    def is_over(self, limits: HttpLimits, now: float) -> bool:
        """Return whether the connection has waited long enough for its next request, or for its end."""
        most_s = {Phase.SILENT: limits.silent_s, Phase.IDLE: limits.keep_alive_s, Phase.LINGER: _LINGER_S}.get(self.phase)
        return most_s is not None and now - self.since > most_s
