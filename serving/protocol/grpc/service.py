"""Puts a servicer on a gRPC server such that messages cost no more than they may, and those that cannot be read are the client's fault.

The handlers that protoc generates decode in the event loop whatever comes, and answer what they cannot read with UNKNOWN, as if the server
had failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from contract.errors import EspalierError
from serving.errors import MessageStalled, SmallMessageTooLarge, TooManyCalls, Undecodable
from serving.observe.events import Observer, note_received
from serving.observe.rpc import observed_call, observed_stream
from serving.process.work_pool import WorkPool
from serving.protocol.grpc.contents import Tensors, take_apart
from serving.protocol.grpc.cost import QUICK_BYTES, Schema, check_cost, is_quick, schema_of
from serving.protocol.grpc.stalled import Cutter, Patience, Receiving, Sending
from serving.protocol.message_limits import USUAL, MessageLimits
from serving.protocol.status import sentence, wire_codes

_Behaviour = TypeVar("_Behaviour", bound=Callable[..., Any])


SHUTTING_DOWN = "The server is shutting down."
_Refused = Callable[[str], None]
"""Is told the limits that strike."""


@dataclass(frozen=True)
class MessageKind:
    """The class of a method's requests, and what is counted of them."""

    message: Any
    schema: Schema
    limits: MessageLimits = USUAL


class Received:
    """A message as it came. bytes: its size on the wire. is_quick: whether to decode it takes below a millisecond."""

    __slots__ = ("_data", "_kind", "bytes", "is_quick")

    def __init__(self, data: bytes, kind: MessageKind) -> None:
        self._data = data
        self._kind = kind
        self.bytes = len(data)
        self.is_quick = is_quick(data, kind.schema)

    def decode(self) -> Any:
        """Return the message; can be called once, for the bytes are let go of. Raises what `check_cost` raises."""
        return self._parse(self._checked())

    def decode_tensors(self) -> tuple[Any, Tensors]:
        """Return a ModelInferRequest as `decode` does, and the data that were taken out of it."""
        data = self._checked()
        if len(data) <= QUICK_BYTES:  # not worth while
            message = self._parse(data)
            return message, Tensors(message.raw_input_contents, {})
        structure, tensors = take_apart(data)
        return self._parse(structure), tensors

    def _checked(self) -> bytes:
        data, self._data = self._data, b""
        if not self.is_quick:
            check_cost(data, self._kind.schema, self._kind.limits)
        return data

    def _parse(self, data: bytes) -> Any:
        try:
            return self._kind.message.FromString(data)
        except DecodeError:
            raise Undecodable from None

    def ByteSize(self) -> int:  # noqa: N802
        """Return its size, as messages do; they write themselves out for it, which takes longer than to read them."""
        return self.bytes


class Encoded:
    """An answer with tensors as it goes. data: its bytes on the wire. has_gone: called when they are not held any more."""

    __slots__ = ("data", "has_gone")

    def __init__(self, data: bytes, has_gone: Callable[[], None] | None = None) -> None:
        self.data = data
        self.has_gone = has_gone

    def ByteSize(self) -> int:  # noqa: N802
        """Return its size, as messages do."""
        return len(self.data)


def takes_tensors(behaviour: _Behaviour) -> _Behaviour:
    """Let a servicer's method have its requests as `Received`, of any size and not decoded yet, and answer with `Encoded`."""
    behaviour.takes_tensors = True  # type: ignore[attr-defined]
    return behaviour


def if_too_large(error: Callable[[], EspalierError]) -> Callable[[_Behaviour], _Behaviour]:
    """Let a method that takes no tensors say why it takes no long messages in words of its own."""

    def marked(behaviour: _Behaviour) -> _Behaviour:
        behaviour.too_large = error  # type: ignore[attr-defined]
        return behaviour

    return marked


async def refuse(error: EspalierError, context: Any, refused: _Refused) -> NoReturn:
    """End a call with the one sentence of `error`, and count the limit that it is about."""
    if error.limit:
        refused(error.limit)
    await context.abort(wire_codes(error).grpc, sentence(error))
    raise AssertionError  # an abort raises


class Gate:
    """Lets calls in: decodes the small messages of methods that take no tensors, and counts the streams that are open."""

    def __init__(self, pool: WorkPool, refused: _Refused, limits: MessageLimits = USUAL) -> None:
        self.limits = limits
        self._patience = Patience(limits.stalled_s)
        self._cutter = Cutter(pool, refused)
        self._pool = pool
        self._refused = refused
        self._streams = 0
        self._calls = 0

    async def begin(self, context: Any) -> None:
        """Count a call, which comes to its `end`; or end it at once where there are too many."""
        if self._calls >= self.limits.calls:
            await refuse(TooManyCalls(self.limits.calls, "calls"), context, self._refused)
        self._calls += 1

    def end(self) -> None:
        """Count a call no longer."""
        self._calls -= 1

    async def receive(self, context: Any) -> Received:
        """Return the one message of a call, or end it with one sentence."""
        receiving = Receiving()
        self._patience.begin(receiving)
        try:
            received = await context.read()
        except asyncio.CancelledError:
            if not receiving.seen():
                raise
            await refuse(MessageStalled(self._patience.stalled_s), context, self._refused)
        finally:
            self._patience.end(receiving)
        if received is grpc.aio.EOF:
            await refuse(Undecodable(), context, self._refused)
        note_received(received.bytes)
        return received  # type: ignore[no-any-return]

    def sending(self, context: Any, has_gone: Callable[[], None] | None = None) -> Sending:
        """Close the connection of a call unless what is returned is told, when its answer has gone, in time. has_gone: see `Sending`."""
        return Sending(self._patience, self._cutter, context, has_gone)

    async def read(self, received: Received, context: Any, behaviour: Any) -> Any:
        """Return the message for `behaviour`, or end the call with one sentence."""
        try:
            if received.bytes > self.limits.small_message_bytes:
                raise _too_large(behaviour, self.limits.small_message_bytes)
            return received.decode() if received.is_quick else await self._pool.run(lambda check: received.decode())
        except EspalierError as error:
            await refuse(error, context, self._refused)

    async def enter(self, context: Any) -> None:
        """Count a stream until it ends, however it does; or end it at once where there are too many."""
        if self._streams >= self.limits.streams:
            await refuse(TooManyCalls(self.limits.streams, "streams"), context, self._refused)
        self._streams += 1
        context.add_done_callback(self._leave)

    def _leave(self, context: Any) -> None:
        self._streams -= 1


def _too_large(behaviour: Any, limit_bytes: int) -> EspalierError:
    error: EspalierError = getattr(behaviour, "too_large", partial(SmallMessageTooLarge, limit_bytes))()
    error.limit = SmallMessageTooLarge.limit
    return error


def add_servicer(server: Any, service: Any, servicer: Any, gate: Gate, observer: Observer) -> None:
    """Let `server` answer the methods of `service` (its descriptor) with the methods of `servicer` that bear their names.

    observer: is told of every call. The methods are not registered with gRPC (1.85), which would wait for a call of each, and look at all
    of these waits for every call: some 35 us.
    """
    handlers = {method.name: _handler(method, getattr(servicer, method.name), gate, observer) for method in service.methods}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))


def _handler(method: Any, behaviour: Any, gate: Gate, observer: Observer) -> Any:
    """Return the handler of a method. To gRPC all take streams, of which most read one message: else it tells nobody of half a message."""
    kind = MessageKind(GetMessageClass(method.input_type), schema_of(method.input_type), gate.limits)
    takes_tensors = getattr(behaviour, "takes_tensors", False)
    codecs = {
        "request_deserializer": lambda data: Received(data, kind),
        "response_serializer": attrgetter("data") if takes_tensors else GetMessageClass(method.output_type).SerializeToString,
    }
    if method.client_streaming or method.server_streaming:
        requests = behaviour if method.client_streaming else _of_one(behaviour, gate)
        streaming = observed_stream(_streaming(requests, gate), method.name, observer)
        return grpc.stream_stream_rpc_method_handler(streaming, **codecs)
    call = observed_call(_call(behaviour, gate, takes_tensors), method.name, observer)
    return grpc.stream_unary_rpc_method_handler(call, **codecs)


def _call(behaviour: Any, gate: Gate, takes_tensors: bool) -> Any:
    async def call(requests: AsyncIterator[Received], context: Any) -> Any:
        await gate.begin(context)
        try:
            received = await gate.receive(context)
            answer = await behaviour(received if takes_tensors else await gate.read(received, context, behaviour), context)
        finally:
            gate.end()
        task = asyncio.current_task()
        if task is not None:  # it ends when the answer has gone, or the call has ended otherwise
            task.add_done_callback(gate.sending(context, answer.has_gone if takes_tensors else None).done)
        return answer

    return call


def _of_one(behaviour: Any, gate: Gate) -> Any:
    async def of_one(requests: AsyncIterator[Received], context: Any) -> AsyncIterator[Any]:
        received = await gate.receive(context)
        async for answer in behaviour(await gate.read(received, context, behaviour), context):
            yield answer

    return of_one


def _streaming(behaviour: Any, gate: Gate) -> Any:
    async def streaming(requests: AsyncIterator[Received], context: Any) -> AsyncIterator[Any]:
        await gate.enter(context)
        async for answer in behaviour(requests, context):
            sending = gate.sending(context)
            try:
                yield answer
            finally:
                sending.done()

    return streaming
