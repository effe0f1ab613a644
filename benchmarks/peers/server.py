"""What a rival is: a way to serve the work, which starts a server that can be asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from benchmarks.peers.processes import Processes
from benchmarks.peers.wires import RivalWire
from benchmarks.peers.work import Work

SEPARATE, SHARED, BATCHED = "separate networks", "shared trunk", "shared trunk, batching"
ONE_AT_A_TIME = "shared trunk, one run at a time"
SEPARATE_SIDE, HEADS_SIDE = f"{SEPARATE}, side by side", f"{SHARED}, heads side by side"


@dataclass(frozen=True)
class Endpoint:
    """One way to ask a server. port: on the loopback."""

    protocol: str
    wire: RivalWire
    port: int


@dataclass(frozen=True)
class RivalServer:
    """A server that has been started, ready or not. check: raises RivalUnavailable when it has ended. lines: that a user has to write."""

    processes: Processes
    endpoints: Sequence[Endpoint]
    lines: int
    check: Callable[[], None] = lambda: None


_Serve = Callable[[Work, int], AbstractContextManager[RivalServer]]


@dataclass(frozen=True)
class Rival:
    """One way to serve the work.

    serve: with the work and the threads of a session; raises RivalUnavailable or a ServingError. environment: that it needs, by the name
    of its pins, "" for none.
    """

    name: str
    variant: str
    version: str
    serve: _Serve
    environment: str = ""
