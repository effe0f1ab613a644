"""Sends bytes, whatever they are, and says how it ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import grpc

from benchmarks.harness.served import ServerProcess
from benchmarks.studies.hostile.attack import LOST

_PATIENCE_S = 100.0
_PIECE_BYTES = 1 << 20
_Play = Callable[[ServerProcess], Awaitable[str]]


def http(request: bytes, *, reads: bool = False) -> _Play:
    """Return what sends `request` and returns the first answer's status. reads: whether it reads all that comes."""

    async def play(server: ServerProcess) -> str:
        reader, writer = await asyncio.open_connection(*server.http_host_port)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                status = await _exchange(reader, writer, request)
                while reads and await reader.read(_PIECE_BYTES):
                    pass
                return status
        except TimeoutError:
            return "no answer"
        except OSError:
            return LOST
        finally:
            writer.transport.abort()

    return play


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> str:
    """Send by pieces and read meanwhile: a server that refuses says so before it has all."""
    answer = asyncio.ensure_future(reader.readline())
    for start in range(0, len(request), _PIECE_BYTES):
        writer.write(request[start : start + _PIECE_BYTES])
        with contextlib.suppress(OSError):
            drained = asyncio.ensure_future(writer.drain())
            await asyncio.wait({answer, drained}, return_when=asyncio.FIRST_COMPLETED)
            drained.cancel()
        if answer.done():
            break
    line = await answer
    return line.split()[1].decode() if line.startswith(b"HTTP/") else LOST


def call(method: str, message: bytes, *, gzip: bool = False, stream: bool = False) -> _Play:
    """Return what calls the gRPC `method` (/service/name) with `message` and returns the code's name."""

    async def play(server: ServerProcess) -> str:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        compression = grpc.Compression.Gzip if gzip else None
        async with grpc.aio.insecure_channel(server.grpc_address, options=options, compression=compression) as channel:
            if stream:
                answers = channel.unary_stream(method)(message, timeout=2)
                with contextlib.suppress(grpc.RpcError):
                    async for _ in answers:
                        pass
                return str((await answers.code()).name)
            asked = channel.unary_unary(method)(message, timeout=_PATIENCE_S)
            return str((await asked.code()).name)

    return play


def at_once(copies: int, play: _Play) -> _Play:
    """Return what does `play` several times side by side, and returns all outcomes that there were, in order and once each."""

    async def several(server: ServerProcess) -> str:
        return ", ".join(sorted({*await asyncio.gather(*(play(server) for _ in range(copies)))}))

    return several
