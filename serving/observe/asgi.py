"""Gives every HTTP request an id and tells an observer of it; raw ASGI, because a framework's middleware costs more than the router."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from serving.observe.events import Observer, RequestRecord, enter_request, request_id

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class RequestMiddleware:
    """`app`, with an x-request-id in every answer. Its error handlers log inside the request, its server's log lines too."""

    def __init__(self, app: _App, observer: Observer) -> None:
        self._app = app
        self._observer = observer

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = _record(scope)
        enter_request(record)
        header = (b"x-request-id", record.id.encode("ascii"))

        async def reply(message: _Message) -> None:
            if message["type"] == "http.response.start":
                record.status = str(message["status"])
                message["headers"] = [*message.get("headers", ()), header]
            else:
                record.sent_bytes += len(message.get("body", b""))
            await send(message)

        self._observer.request_started(record)
        started = time.perf_counter()
        try:
            await self._app(scope, receive, reply)
        finally:
            record.status = record.status or "499"  # nothing was sent: the client has gone
            record.seconds = time.perf_counter() - started
            self._observer.request_done(record)


def _record(scope: _Scope) -> RequestRecord:
    headers: dict[bytes, bytes] = dict(scope["headers"])
    length = headers.get(b"content-length", b"")
    return RequestRecord(
        protocol="http",
        method=f"{scope['method']} {_path(scope)}",
        id=request_id(headers.get(b"x-request-id", b"").decode("latin-1")),
        client=":".join(map(str, scope["client"])) if scope.get("client") else "",
        traceparent=headers.get(b"traceparent", b"").decode("latin-1"),
        tracestate=headers.get(b"tracestate", b"").decode("latin-1"),
        received_bytes=int(length) if length.isdigit() else 0,
    )


def _path(scope: _Scope) -> str:
    """Return the path as it was sent: percent-encoded, it cannot break a line; what came unencoded is escaped."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.decode("ascii", "backslashreplace")
