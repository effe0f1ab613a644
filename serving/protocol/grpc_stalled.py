"""Calls that stand still: a client that sends half a message, or takes no answer, holds memory for as long as it likes.

gRPC lets a call be ended from here only between two messages. What is being sent ends with its connection, which gRPC does not give away:
it is found among this process's descriptors by the address of its peer, and shut down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Collection
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import count, takewhile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from serving.errors import BodyStalled
from serving.protocol.work_pool import Check, WorkPool

STALLED_S = 60.0
_DESCRIPTORS = Path("/proc/self/fd")
log = logging.getLogger(__name__)


class MessageStalled(BodyStalled):
    """A message of a call has not come to its end."""

    limit = "stalled"


class Patience:
    """Waits for many things at once, each at most `stalled_s` seconds, with one timer: a call has two of them."""

    def __init__(self, stalled_s: float) -> None:
        self.stalled_s = stalled_s
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._waiting: dict[int, tuple[float, Callable[[], None]]] = {}  # in the order of their ends
        self._is_looking = False

    def begin(self, strike: Callable[[], None]) -> int:
        """Return a number by which to `end` the wait; where nobody does in time, `strike` is called."""
        number = next(self._numbers)
        self._waiting[number] = self._loop.time() + self.stalled_s, strike
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(self.stalled_s, self._look)
        return number

    def end(self, number: int) -> None:
        """Wait no longer."""
        self._waiting.pop(number, None)

    def _look(self) -> None:
        now = self._loop.time()
        over = [number for number, _ in takewhile(lambda item: item[1][0] <= now, self._waiting.items())]
        strikes = [self._waiting.pop(number)[1] for number in over]
        self._is_looking = bool(self._waiting)
        if self._is_looking:
            end, _ = next(iter(self._waiting.values()))
            self._loop.call_at(end, self._look)
        for strike in strikes:
            strike()


class Receiving:
    """Gives up a task that waits for a message. Made in the task."""

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._has_given_up = False

    def give_up(self) -> None:
        """Cancel the task."""
        self._has_given_up = True
        if self._task is not None:
            self._task.cancel()

    def seen(self) -> bool:
        """Return whether it was this that cancelled the task, and nobody else; then the cancelling is over."""
        return self._has_given_up and self._task is not None and self._task.uncancel() == 0


class Sending:
    """Closes the connections of clients that take no answer. refused: is told the limit that strikes.

    The pool looks for the connections, for all at once, for that takes longer the more there are.
    """

    def __init__(self, pool: WorkPool, refused: Callable[[str], None]) -> None:
        self._pool = pool
        self._refused = refused
        self._peers: set[str] = set()
        self._closing: asyncio.Task[None] | None = None

    def give_up(self, context: Any) -> None:
        """Close the connection of a call."""
        self._refused(MessageStalled.limit)
        self._peers.add(context.peer())
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())

    async def _close(self) -> None:
        while self._peers:
            peers, self._peers = self._peers, set()
            log.info("%d clients take nothing of their answers, and lose their connections; one is %s.", len(peers), min(peers))
            await self._pool.run(partial(_shut_down_all, peers))
        self._closing = None


def _shut_down_all(peers: Collection[str], check: Check) -> None:
    shut_down(peers)


def shut_down(peers: Collection[str]) -> None:
    """Shut down this process's connections to `peers`, addresses as gRPC writes them: "ipv4:127.0.0.1:8001"."""
    wanted = {end for peer in peers if (end := _end(peer)) is not None}
    for descriptor in _DESCRIPTORS.iterdir():
        with contextlib.suppress(OSError, ValueError), _socket_of(int(descriptor.name)) as connection:  # none of TCP, or gone
            host, port = connection.getpeername()[:2]
            if (_address(host), port) in wanted:
                connection.shutdown(socket.SHUT_RDWR)


def _end(peer: str) -> tuple[IPv4Address | IPv6Address, int] | None:
    """Return the end of a connection of TCP; None: it is another kind of connection."""
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    return (_address(host.strip("[]")), int(port)) if port.isdecimal() else None


def _address(host: str) -> IPv4Address | IPv6Address:
    """Return an address, also where IPv4 comes by a socket of IPv6. Raises ValueError."""
    address = ip_address(host.partition("%")[0])
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _socket_of(descriptor: int) -> socket.socket:
    """Return a socket with a descriptor of its own, which stays what it is, whoever closes the other. Raises OSError."""
    same = os.dup(descriptor)
    try:
        return socket.socket(fileno=same)
    except OSError:
        os.close(same)
        raise
