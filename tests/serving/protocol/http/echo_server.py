"""The project's HTTP server with an application that says what it was asked, under limits that a test sets."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from types import TracebackType
from typing import Any, Self

from starlette.requests import ClientDisconnect

from serving.limits import changed_limits
from serving.process.sockets import listening_socket
from serving.protocol.http.body import read_body
from serving.protocol.http.cancel_on_disconnect import cancel_on_disconnect
from serving.protocol.http.connection.limits import HttpLimits
from serving.protocol.http.connection.server import HttpServer
from serving.protocol.memory_budget import MemoryBudget
from tests.serving.protocol.http.raw import until


class EchoServer:
    """Runs in a thread. Answers with the path and the bytes of the body; /large with `large` bytes.

    /wait reads the body, and /late does not, before `gate` is set. order: the paths, as their requests began. most_at_once: requests of
    all connections. received: bytes of bodies that were read. left: requests whose client has gone. measures: whether longest_s is
    measured: the processor time of the loop's thread for one of its turns; and busy_s, that of all turns in which there was something to
    do. Garbage, of which the other tests leave much, is not collected meanwhile.
    """

    def __init__(self, limits: HttpLimits | None = None, grace_s: float = 0.0, measures: bool = False) -> None:
        self.limits = limits
        self.measures = measures
        self.refused: Counter[str] = Counter()
        self.pending = MemoryBudget()
        self.gate = threading.Event()
        self.large = 8_000_000
        self.order: list[str] = []
        self.most_at_once = 0
        self.received = 0
        self.left = 0
        self.longest_s = 0.0
        self.busy_s = 0.0
        self.port = 0
        self._ahead_s = 0.0
        self._at_once = 0
        self._grace_s = grace_s
        self._started, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.time = lambda: time.monotonic() + self._ahead_s  # type: ignore[method-assign]
        with closing(listening_socket("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            server = HttpServer(
                self._answer, listener, self._grace_s, self.limits, lambda limit: self.refused.update([limit]), self.pending
            )
            await server.start()
            self._connections = server._connections
            ticker = asyncio.create_task(self._tick())
            self._started.set()
            await asyncio.to_thread(self._stop.wait)
            ticker.cancel()
            await server.aclose()

    def later(self, seconds: float) -> None:
        """Let the server's clock go on by so much, and return when it has looked after its connections since."""
        self._ahead_s += seconds
        now = self._loop.time()
        self._loop.call_soon_threadsafe(int)  # it may wait for what is due much later
        until(lambda: self._connections.now >= now)

    def unread(self) -> int:
        """Return the bytes of answers that wait for their clients."""
        return sum(connection.transport.get_write_buffer_size() for connection in tuple(self._connections._open))

    async def _tick(self) -> None:
        if self.measures:
            gc.disable()
        try:
            while self.measures:
                before = time.thread_time()
                await asyncio.sleep(0)
                took_s = time.thread_time() - before
                self.longest_s = max(self.longest_s, took_s)
                self.busy_s += took_s if took_s > 0.0005 else 0.0
        finally:
            gc.enable()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.order.append(scope["path"])
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self._respond(scope["path"], receive, send)
        finally:
            self._at_once -= 1

    async def _respond(self, path: str, receive: Any, send: Any) -> None:
        if path == "/late":
            await self._wait()

        async def counted() -> Any:
            message = await receive()
            self.received += len(message.get("body", b""))
            return message

        try:
            body = await read_body({}, counted, 10**9)
            if path == "/wait":
                await cancel_on_disconnect(receive, self._wait())
        except ClientDisconnect:
            self.left += 1
            return
        answer = bytes(self.large) if path == "/large" else json.dumps([path, len(body)]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(answer))]})
        await send({"type": "http.response.body", "body": answer})

    async def _wait(self) -> None:
        while not self.gate.is_set():
            await asyncio.sleep(0.005)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def stop(self, seconds: float) -> bool:
        """Have it end; say whether it has within `seconds`."""
        self._stop.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.gate.set()
        assert self.stop(20)

    def connect(self, sent: bytes = b"", timeout: float = 20.0) -> socket.socket:
        """Return a connection on which something was sent."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.sendall(sent)
        return raw


if __name__ == "__main__":
    with EchoServer(changed_limits(sys.argv[1:]).http) as server:
        print(server.port, flush=True)
        sys.stdin.read()
