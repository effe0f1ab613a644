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
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import count, takewhile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from serving.errors import BodyStalled
from serving.protocol.work_pool import WorkPool

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

    The pool looks for the connection, which takes longer the more there are.
    """

    def __init__(self, pool: WorkPool, refused: Callable[[str], None]) -> None:
        self._pool = pool
        self._refused = refused
        self._closing: set[asyncio.Task[None]] = set()

    def give_up(self, context: Any) -> None:
        """Close the connection of a call."""
        peer = context.peer()
        self._refused(MessageStalled.limit)
        log.info("Client %s takes nothing of an answer; its connection is closed.", peer)
        closing = asyncio.ensure_future(self._pool.run(lambda check: shut_down(peer)))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def shut_down(peer: str) -> None:
    """Shut down this process's connections to `peer`, an address as gRPC writes it: "ipv4:127.0.0.1:8001"."""
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    if not port.isdecimal():
        return  # no connection of TCP
    wanted = _address(host.strip("[]")), int(port)
    for descriptor in _DESCRIPTORS.iterdir():
        with contextlib.suppress(OSError, ValueError), _socket_of(int(descriptor.name)) as connection:  # none of TCP, or gone
            there, number = connection.getpeername()[:2]
            if (_address(there), number) == wanted:
                connection.shutdown(socket.SHUT_RDWR)


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
