"""Takes connections from a socket that listens, for as long as there is room for them.

The loop's own server takes all that are there before it asks anybody, and ends for good when there are no more descriptors.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from collections.abc import Callable

from serving.protocol.http.connection.connections import Connections

_AT_ONCE = 16  # connections, before others have their turn
_PAUSE_S = 0.1  # when there are no descriptors
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BODY = json.dumps({"error": "All connections that this server may have are open and in use; try again later."}).encode()
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class Acceptor:
    """Makes what `protocol` returns the protocol of each connection that `connections` has room for; others hear that there is none."""

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], connections: Connections) -> None:
        self._listener = listener
        self._protocol = protocol
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._coming: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Take connections."""
        self._loop.add_reader(self._listener, self._accept)

    def end(self) -> None:
        """Take no more."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, _ = self._listener.accept()
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._rest(error)
                return
            self._take(client)

    def _take(self, client: socket.socket) -> None:
        client.setblocking(False)
        if not self._connections.make_room(len(self._coming)):
            self._connections.note_turned_away()
            _turn_away(client)
            return
        task: asyncio.Task[object] = self._loop.create_task(self._connect(client))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    async def _connect(self, client: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, client)
        except OSError:  # it has gone again
            client.close()

    def _rest(self, error: OSError) -> None:
        """Try again later: what waits would wake the loop at once."""
        self._connections.say("Connections wait, because none can be taken: %s.", error.strerror)
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(_PAUSE_S, self.begin)


def _turn_away(client: socket.socket) -> None:
    with client:
        try:
            client.send(_REFUSAL)
            client.shutdown(socket.SHUT_WR)
            client.recv(65_536)  # what is not read takes the refusal with it
        except OSError:
            pass
