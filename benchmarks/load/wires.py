"""The ways in which clients talk to a server, each with as little of its own as can be: prepared bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum

import grpc

from benchmarks.framework.errors import NoSuchMeasurement
from benchmarks.harness.http_wire import KeptConnection, binary_body, infer_bytes, request_bytes
from benchmarks.harness.inputs import grpc_message, random_jpeg, random_rows
from benchmarks.harness.served import ServerProcess
from benchmarks.load.errors import Refused
from contract.repository import ALL_TASKS, Repository

Call = Callable[[bytes], Awaitable[None]]  # raises Refused, OSError, EOFError


class Wire(StrEnum):
    """grpc: v2 over gRPC. http: v2 over HTTP with tensors in binary. predict: a JPEG to POST /predict."""

    grpc = "gRPC"
    http = "binary HTTP"
    predict = "JPEG to /predict"


def choose_wires(words: Sequence[str]) -> tuple[Wire, ...]:
    """Return the wires that have one of `words` in their names, in any case; all without words. Raises NoSuchMeasurement."""
    for word in words:
        if not any(word.lower() in wire.lower() for wire in Wire):
            raise NoSuchMeasurement(word, Wire)
    return tuple(wire for wire in Wire if not words or any(word.lower() in wire.lower() for word in words))


def make_requests(repository: Repository, wire: Wire, models: Iterable[str]) -> dict[str, bytes]:
    """Return a request of one row to each of `models` as it goes over `wire`. A model is a task, or ALL_TASKS."""
    return {model: _make_request(repository, wire, model) for model in models}


def _make_request(repository: Repository, wire: Wire, model: str) -> bytes:
    task = repository.tasks[next(iter(repository.tasks)) if model == ALL_TASKS else model]
    if wire is Wire.predict:
        path = "/predict" if model == ALL_TASKS else f"/predict/{model}"
        return request_bytes("POST", path, "Content-Type: image/jpeg", body=random_jpeg())
    rows = random_rows(task)
    if wire is Wire.grpc:
        return grpc_message(model, task, rows)
    (spec,) = task.inputs
    return infer_bytes(model, *binary_body(spec, rows[spec.name]))


def address_of(server: ServerProcess, wire: Wire) -> str:
    """Return host:port."""
    return server.grpc_address if wire is Wire.grpc else server.http_address


def connect(wire: Wire, address: str) -> AbstractAsyncContextManager[Call]:
    """Return a connection of its own to `address` (host:port)."""
    return _grpc(address) if wire is Wire.grpc else _http(address)


@asynccontextmanager
async def _http(address: str) -> AsyncIterator[Call]:
    host, _, port = address.rpartition(":")
    connection = await KeptConnection.open((host, int(port)))

    async def call(request: bytes) -> None:
        reply = await connection.ask(request)
        if reply.status != 200:
            raise Refused(str(reply.status), reply.body.decode("utf-8", "replace")[:300])

    try:
        yield call
    finally:
        await connection.close()


@asynccontextmanager
async def _grpc(address: str) -> AsyncIterator[Call]:
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        await channel.channel_ready()
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # bytes in, bytes out

        async def call(request: bytes) -> None:
            try:
                await method(request)
            except grpc.aio.AioRpcError as error:
                raise Refused(error.code().name, error.details() or "") from None

        yield call
