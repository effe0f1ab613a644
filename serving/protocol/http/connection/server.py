"""The HTTP application on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn

from serving.protocol.http.connection.accept import Acceptor
from serving.protocol.http.connection.connections import Connections
from serving.protocol.http.connection.limits import HttpLimits
from serving.protocol.memory_budget import MemoryBudget

try:
    from serving.protocol.http.connection.protocol import HttpProtocol
except ModuleNotFoundError:  # httptools is not for Windows; uvicorn takes h11 there, with limits of its own
    HttpProtocol = None  # type: ignore[assignment,misc]


class HttpServer(uvicorn.Server):
    """uvicorn on a socket that is already listening, leaving signals to whoever owns the process.

    refused: is told of each limit that strikes. budget: counts the bytes of answers that clients are slow to read.
    """

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        grace_s: float,
        limits: HttpLimits | None = None,
        refused: Callable[[str], None] = lambda limit: None,
        budget: MemoryBudget | None = None,
    ) -> None:
        limits = limits or HttpLimits()
        self._connections = Connections(limits, refused, budget or MemoryBudget())
        super().__init__(
            uvicorn.Config(
                app,
                http="h11" if HttpProtocol is None else HttpProtocol,
                interface="asgi3",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=limits.keep_alive_s,  # type: ignore[arg-type]
                timeout_graceful_shutdown=_as_uvicorn_takes(grace_s),
            )
        )
        self._listener = listener
        self._acceptor: Acceptor | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when connections are accepted."""
        self._serving = asyncio.create_task(self.serve([self._listener]))
        while not self.started:
            if self._serving.done():
                await self._serving
            await asyncio.sleep(0.005)

    async def aclose(self, grace_s: float | None = None) -> None:
        """Finish the requests in flight. grace_s: how long they may take, in place of what was said at first."""
        if grace_s is not None:
            self.config.timeout_graceful_shutdown = _as_uvicorn_takes(grace_s)
        self.should_exit = True
        if self._serving is not None:
            await self._serving

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections."""
        if HttpProtocol is None:
            await super().startup(sockets)
            return
        make = partial(HttpProtocol, self._connections, config=self.config, server_state=self.server_state, app_state={})
        self.servers = []
        self._acceptor = Acceptor(self._listener, make, self._connections)
        self._acceptor.begin()
        self._connections.begin()
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and finish the requests in flight."""
        if self._acceptor is not None:
            self._acceptor.end()
        self._connections.is_draining = True
        try:
            await super().shutdown(sockets)
        finally:
            self._connections.end()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _as_uvicorn_takes(grace_s: float) -> Any:
    """Parts of a second count, whatever uvicorn's annotation says; at 0 it would not see that nothing is in flight."""
    return max(0.001, grace_s)
