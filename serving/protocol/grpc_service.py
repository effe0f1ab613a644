"""Puts a servicer on a gRPC server such that messages that cannot be read are the client's fault.

The handlers that protoc generates answer them with UNKNOWN, as if the server had failed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

_SENTENCE = "The message is not the one that this method takes: it cannot be decoded."


class _Malformed:
    """Stands for a message that could not be decoded."""

    def __init__(self, data: bytes) -> None:
        self._bytes = len(data)

    def ByteSize(self) -> int:  # noqa: N802
        """Return its size, as messages do: whoever counts bytes counts these, too."""
        return self._bytes


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


def _reader(message: Any) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return message.FromString(data)
        except DecodeError:
            return _Malformed(data)

    return read


async def _checked(request: Any, context: Any) -> Any:
    if isinstance(request, _Malformed):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _SENTENCE)
    return request


def _unary_unary(behaviour: Any) -> Any:
    async def unary_unary(request: Any, context: Any) -> Any:
        return await behaviour(await _checked(request, context), context)

    return unary_unary


def _unary_stream(behaviour: Any) -> Any:
    async def unary_stream(request: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in behaviour(await _checked(request, context), context):
            yield answer

    return unary_stream


def _stream_stream(behaviour: Any) -> Any:
    async def stream_stream(requests: Any, context: Any) -> AsyncIterator[Any]:
        checked = (await _checked(request, context) async for request in requests)
        async for answer in behaviour(checked, context):
            yield answer

    return stream_stream
