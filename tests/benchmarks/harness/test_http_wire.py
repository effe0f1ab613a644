"""The benchmarks' own HTTP client: a connection that the server closes while it is idle costs no request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.harness.http_wire import HttpConnection, KeptConnection, request_bytes

REQUEST = request_bytes("GET", "/")


@asynccontextmanager
async def server(answers: list[bytes]) -> AsyncIterator[tuple[str, int]]:
    """Run a server that takes the next of `answers` for each request, and closes the connection after it without a word."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(len(REQUEST)):
            writer.write(answers.pop(0))
        writer.close()
        await writer.wait_closed()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        host, port = listening.sockets[0].getsockname()
        yield host, port


def answer(body: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers, b"", body])


async def ended(connection: HttpConnection) -> None:
    """Wait for the end of the connection, which is on its way."""
    async with asyncio.timeout(20):
        while not connection.is_closed:
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("headers", [(), (b"Connection: close",)])
def test_a_connection_that_was_closed_between_requests_is_opened_again(headers: tuple[bytes, ...]) -> None:
    async def ask() -> list[bytes]:
        async with server([answer(b"%d" % number, *headers) for number in range(3)]) as address:
            connection = await KeptConnection.open(address)
            found = []
            for _ in range(3):
                found.append((await connection.ask(REQUEST)).body)
                if connection._connection is not None:
                    await ended(connection._connection)
            await connection.close()
            return found

    assert asyncio.run(ask()) == [b"0", b"1", b"2"]


def test_after_an_answer_that_broke_off_the_next_request_has_a_new_connection() -> None:
    async def ask() -> bytes:
        async with server([answer(b"whole")[:-2], answer(b"whole")]) as address:
            connection = await KeptConnection.open(address)
            with pytest.raises(EOFError):
                await connection.ask(REQUEST)
            reply = await connection.ask(REQUEST)
            await connection.close()
            return reply.body

    assert asyncio.run(ask()) == b"whole"


def test_a_plain_connection_fails_where_it_was_closed() -> None:
    async def ask() -> None:
        async with server([answer(b""), answer(b"")]) as address:
            connection = await HttpConnection.open(address)
            await connection.ask(REQUEST)
            await ended(connection)
            with pytest.raises((EOFError, OSError)):
                await connection.ask(REQUEST)
            await connection.close()

    asyncio.run(ask())
