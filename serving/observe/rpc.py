"""Gives every RPC an id and tells an observer of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any

from serving.observe.events import Observer, RequestRecord, enter_request, request_id

_HEADERS = ("x-request-id", "traceparent", "tracestate")
_Work = Callable[[Any, Any], Any]
"""What a handler does: with the stream of a call's messages and its context."""


def observed_call(work: _Work, name: str, observer: Observer) -> _Work:
    """Return `work`, a coroutine function, as the RPC `name`: its answer has x-request-id in its trailing metadata, and `observer` is told.

    An interceptor of gRPC's would do the same, for more: it goes through a coroutine and a lookup of its own for each call.
    """

    async def call(requests: Any, context: Any) -> Any:
        with _Rpc(observer, name, context) as record:
            response = await work(requests, context)
            record.sent_bytes = _size(response)
            return response

    return call


def observed_stream(work: _Work, name: str, observer: Observer) -> _Work:
    """Do as `observed_call` for an asynchronous generator. A stream is one request: its messages add up."""

    async def stream(requests: Any, context: Any) -> AsyncIterator[Any]:
        with _Rpc(observer, name, context) as record:
            async for response in work(_counted(requests, record), context):
                record.sent_bytes += _size(response)
                yield response

    return stream


class _Rpc:
    """One RPC as a context manager: it begins as the task's request, and ends with a status."""

    def __init__(self, observer: Observer, method: str, context: Any) -> None:
        self._observer = observer
        self._context = context
        self._record = _record(method, context)
        self._started = 0.0

    def __enter__(self) -> RequestRecord:
        enter_request(self._record)
        self._context.set_trailing_metadata((("x-request-id", self._record.id),))
        self._observer.request_started(self._record)
        self._started = time.perf_counter()
        return self._record

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._record.seconds = time.perf_counter() - self._started
        self._record.status = _status(self._context, error)
        self._observer.request_done(self._record)


def _record(method: str, context: Any) -> RequestRecord:
    sent = dict.fromkeys(_HEADERS, "")
    for key, value in context.invocation_metadata() or ():
        if key in sent and isinstance(value, str):
            sent[key] = value
    identity, parent, state = sent.values()
    return RequestRecord("grpc", method, request_id(identity), context.peer(), parent, state)


async def _counted(requests: Any, record: RequestRecord) -> AsyncIterator[Any]:
    """Add the size of each message, when it comes, to `record`."""
    async for message in requests:
        record.received_bytes += _size(message)
        yield message


def _size(message: Any) -> int:
    return int(message.ByteSize()) if message is not None else 0


def _status(context: Any, error: BaseException | None) -> str:
    """Return the name of the status. A stream that the client gives up between two requests may look like one that it has ended."""
    code = context.code()  # None until somebody sets it
    if code is not None:
        return str(code.name)
    if context.cancelled() or isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "CANCELLED"
    return "OK" if error is None else "UNKNOWN"
