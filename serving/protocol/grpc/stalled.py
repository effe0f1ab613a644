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
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from serving.errors import MessageStalled
from serving.process.work_pool import Check, WorkPool

_DESCRIPTORS = Path("/proc/self/fd")
log = logging.getLogger(__name__)


class _Wait(Protocol):
    """Something that lasts until the other side goes on."""

    def give_up(self) -> None:
        """Wait no longer."""


class Patience:
    """Waits for many things at once, each at most `stalled_s` seconds, with one timer: a call has two of them."""

    def __init__(self, stalled_s: float) -> None:
        self.stalled_s = stalled_s
        self._loop = asyncio.get_running_loop()
        self._since: dict[_Wait, float] = {}  # in the order of their ends
        self._is_looking = False

    def begin(self, wait: _Wait) -> None:
        """Have `wait` given up in time, unless it comes to its `end`."""
        self._since[wait] = self._loop.time()
        if not self._is_looking:
            self._is_looking = True
            self._loop.call_later(self.stalled_s, self._look)

    def end(self, wait: _Wait) -> None:
        """Do nothing more about `wait`."""
        self._since.pop(wait, None)

    def _look(self) -> None:
        latest = self._loop.time() - self.stalled_s
        over = [wait for wait, _ in takewhile(lambda item: item[1] <= latest, self._since.items())]
        for wait in over:
            del self._since[wait]
        self._is_looking = bool(self._since)
        if self._is_looking:
            self._loop.call_at(next(iter(self._since.values())) + self.stalled_s, self._look)
        for wait in over:
            wait.give_up()


class Receiving:
    """A task that waits for a message. Made in the task."""

    __slots__ = ("_has_given_up", "_task")

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
    """An answer that is on its way, over a call's connection. has_gone: called in the end, however that is."""

    __slots__ = ("_context", "_cutter", "_has_gone", "_patience")

    def __init__(self, patience: Patience, cutter: Cutter, context: Any, has_gone: Callable[[], None] | None = None) -> None:
        self._patience = patience
        self._cutter = cutter
        self._context = context
        self._has_gone = has_gone
        patience.begin(self)

    def give_up(self) -> None:
        """Close the connection."""
        self._cutter.cut(self._context.peer())

    def done(self, task: object = None) -> None:
        """Note that it has gone."""
        self._patience.end(self)
        if self._has_gone is not None:
            self._has_gone()


class Cutter:
    """Closes the connections of clients that take no answer. refused: is told the limit that strikes.

    The pool looks for the connections, for all at once, for that takes longer the more there are.
    """

    def __init__(self, pool: WorkPool, refused: Callable[[str], None]) -> None:
        self._pool = pool
        self._refused = refused
        self._peers: set[str] = set()
        self._closing: asyncio.Task[None] | None = None

    def cut(self, peer: str) -> None:
        """Close the connection to `peer`, an address as gRPC writes it."""
        self._refused(MessageStalled.limit)
        self._peers.add(peer)
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
