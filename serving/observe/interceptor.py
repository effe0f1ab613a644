"""Gives every RPC an id and tells an observer of it."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

import grpc

from serving.observe.events import Observer, RequestRecord
from serving.observe.request import enter_request, request_id

_Handler = Callable[[Any, Any], Any]
# By (request streams, response streams): the attribute of a handler that does the work, and what makes a handler of it.
_KINDS: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


class RequestInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Puts x-request-id into the trailing metadata of every answer. A stream is one request: its messages add up."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._wrapped: dict[str, tuple[Any, Any]] = {}  # by method: a handler as it came, and wrapped

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the handler of the RPC, wrapped; unknown and synchronous ones (which only refuse) as they are."""
        handler = await continuation(details)
        if handler is None:
            return None
        method = details.method
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = handler, self._wrap(handler, method.rpartition("/")[2])
        return known[1]

    def _wrap(self, handler: Any, name: str) -> Any:
        attribute, make = _KINDS[handler.request_streaming, handler.response_streaming]
        work: _Handler = getattr(handler, attribute)
        if inspect.isasyncgenfunction(work):
            wrapped: _Handler = self._around_stream(work, name)
        elif inspect.iscoroutinefunction(work):
            wrapped = self._around_call(work, name)
        else:
            return handler
        return make(wrapped, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer)

    def _around_call(self, work: _Handler, name: str) -> _Handler:
        async def call(request: Any, context: Any) -> Any:
            with _Rpc(self._observer, name, context) as record:
                response = await work(_counted(request, record), context)
                record.sent_bytes = _size(response)
                return response

        return call

    def _around_stream(self, work: _Handler, name: str) -> _Handler:
        async def stream(requests: Any, context: Any) -> AsyncIterator[Any]:
            with _Rpc(self._observer, name, context) as record:
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
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return RequestRecord(
        protocol="grpc",
        method=method,
        id=request_id(metadata.get("x-request-id", "")),
        client=context.peer(),
        traceparent=metadata.get("traceparent", ""),
        tracestate=metadata.get("tracestate", ""),
    )


def _counted(request: Any, record: RequestRecord) -> Any:
    """Add the size of a message, or of each of a stream's messages when it comes, to `record`."""
    if not hasattr(request, "__aiter__"):
        record.received_bytes = _size(request)
        return request

    async def counted() -> AsyncIterator[Any]:
        async for message in request:
            record.received_bytes += _size(message)
            yield message

    return counted()


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
