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


class Sending:
    """Watches answers go out, and closes the connection of a client that takes none for `stalled_s` seconds.

    refused: is told the limit that strikes. The pool looks for the connection, which takes longer the more there are.
    """

    def __init__(self, pool: WorkPool, refused: Callable[[str], None], stalled_s: float = STALLED_S) -> None:
        self.stalled_s = stalled_s
        self._pool = pool
        self._refused = refused
        self._closing: set[asyncio.Task[None]] = set()

    def begin(self, context: Any) -> asyncio.TimerHandle:
        """Return what is to be cancelled when the answer of a call has gone."""
        return asyncio.get_running_loop().call_later(self.stalled_s, self._strike, context.peer())

    def _strike(self, peer: str) -> None:
        self._refused(MessageStalled.limit)
        log.info("Client %s has taken nothing of an answer for %g seconds; its connection is closed.", peer, self.stalled_s)
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
