"""Puts a servicer on a gRPC server such that messages that cannot be read are the client's fault.

The handlers that protoc generates answer them with UNKNOWN, as if the server had failed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

Behaviour = TypeVar("Behaviour", bound=Callable[..., Any])
_SENTENCE = "The message is not the one that this method takes: it cannot be decoded."


class Received:
    """A message as it came. message: None where it could not be decoded. bytes: its size on the wire."""

    __slots__ = ("bytes", "message")

    def __init__(self, message: Any, size: int) -> None:
        self.message = message
        self.bytes = size

    def ByteSize(self) -> int:  # noqa: N802
        """Return its size, as messages do; they write themselves out for it, which takes longer than to read them."""
        return self.bytes


def with_sizes(behaviour: Behaviour) -> Behaviour:
    """Let a servicer's method have its requests as `Received`, and not as messages."""
    behaviour.takes_sizes = True  # type: ignore[attr-defined]
    return behaviour


def add_servicer(server: Any, service: Any, servicer: Any) -> None:
    """Let `server` answer the methods of `service` (its descriptor) with the methods of `servicer` that bear their names."""
    handlers = {method.name: _handler(method, getattr(servicer, method.name)) for method in service.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    server.add_registered_method_handlers(service.full_name, handlers)


def _handler(method: Any, behaviour: Any) -> Any:
    codecs = {
        "request_deserializer": _reader(GetMessageClass(method.input_type)),
        "response_serializer": GetMessageClass(method.output_type).SerializeToString,
    }
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(_stream_stream(behaviour), **codecs)
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(_unary_stream(behaviour), **codecs)
    return grpc.unary_unary_rpc_method_handler(_unary_unary(behaviour), **codecs)


def _reader(message: Any) -> Callable[[bytes], Received]:
    def read(data: bytes) -> Received:
        try:
            return Received(message.FromString(data), len(data))
        except DecodeError:
            return Received(None, len(data))

    return read


async def _checked(received: Received, context: Any, behaviour: Any) -> Any:
    """Return what `behaviour` takes. A message that could not be decoded ends the call."""
    if received.message is None:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _SENTENCE)
    return received if getattr(behaviour, "takes_sizes", False) else received.message


def _unary_unary(behaviour: Any) -> Any:
    async def unary_unary(request: Any, context: Any) -> Any:
        return await behaviour(await _checked(request, context, behaviour), context)

    return unary_unary


def _unary_stream(behaviour: Any) -> Any:
    async def unary_stream(request: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in behaviour(await _checked(request, context, behaviour), context):
            yield answer

    return unary_stream


def _stream_stream(behaviour: Any) -> Any:
    async def stream_stream(requests: Any, context: Any) -> AsyncIterator[Any]:
        checked = (await _checked(request, context, behaviour) async for request in requests)
        async for answer in behaviour(checked, context):
            yield answer

    return stream_stream
