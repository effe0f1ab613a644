"""The HTTP application on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

try:
    from serving.protocol.http_protocol import HttpProtocol
except ModuleNotFoundError:  # httptools is not for Windows; with h11 there is no need of ours
    from uvicorn.protocols.http.h11_impl import H11Protocol as HttpProtocol  # type: ignore[assignment]

# Longer than load balancers and clients keep idle connections, 60 s as a rule: whoever asks is to close them. Where the server does, a
# request that was just sent is lost.
KEEP_ALIVE_S = 75


class HttpServer(uvicorn.Server):
    """uvicorn on a socket that is already listening, leaving signals to whoever owns the process."""

    def __init__(self, app: Any, listener: socket.socket, grace_s: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                # Parts of a second count, whatever uvicorn's annotation says; at 0 it would not see that nothing is in flight.
                timeout_graceful_shutdown=max(0.001, grace_s),  # type: ignore[arg-type]
            )
        )
        self._listener = listener
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when connections are accepted."""
        self._serving = asyncio.create_task(self.serve([self._listener]))
        while not self.started:
            if self._serving.done():
                await self._serving
            await asyncio.sleep(0.005)

    async def aclose(self) -> None:
        """Finish the requests in flight."""
        self.should_exit = True
        if self._serving is not None:
            await self._serving

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
