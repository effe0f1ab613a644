"""HTTP with as little as can be done, for clients that share their cores with the server that they measure."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass

from contract.dtypes import Array
from contract.repository import TensorSpec

_LENGTH, _JSON_LENGTH = re.compile(rb"\ncontent-length: (\d+)"), re.compile(rb"\ninference-header-content-length: (\d+)")


@dataclass(frozen=True)
class Reply:
    """An answer. keeps_open: whether the connection can be used again. json_bytes: of the body that are JSON before tensors in binary."""

    status: int
    body: bytes
    keeps_open: bool
    json_bytes: int | None = None

    @property
    def tensors(self) -> bytes:
        """Return the binary part of the body, the outputs one after the other."""
        return self.body[self.json_bytes :] if self.json_bytes is not None else b""


@dataclass(frozen=True)
class HttpConnection:
    """A connection that is kept alive, for one request at a time."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def open(cls, address: tuple[str, int]) -> HttpConnection:
        """Connect to a host and port. Raises OSError."""
        return cls(*await asyncio.open_connection(*address))

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed it, as far as is known."""
        return self.reader.at_eof()

    async def ask(self, request: bytes) -> Reply:
        """Send a whole request and return its answer. Raises OSError, asyncio.IncompleteReadError (an EOFError)."""
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        length, json_length = _LENGTH.search(head), _JSON_LENGTH.search(head)
        chunked = b"\ntransfer-encoding: chunked" in head
        body = await self._chunks() if chunked else await self.reader.readexactly(int(length.group(1)) if length else 0)
        keeps_open = (chunked or length is not None) and b"\nconnection: close" not in head
        return Reply(int(head.split()[1]), body, keeps_open, int(json_length.group(1)) if json_length else None)

    async def _chunks(self) -> bytes:
        """Return a body that comes in pieces, each with its length before it; the last one is empty."""
        body = b""
        while size := int((await self.reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        while await self.reader.readuntil(b"\r\n") != b"\r\n":  # trailers
            pass
        return body

    async def close(self) -> None:
        """Close it."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class KeptConnection:
    """A connection to `address` (host, port) that is opened again where the server has closed it, as every HTTP client does."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._connection: HttpConnection | None = None

    @classmethod
    async def open(cls, address: tuple[str, int]) -> KeptConnection:
        """Connect. Raises OSError."""
        kept = cls(address)
        kept._connection = await HttpConnection.open(address)
        return kept

    async def ask(self, request: bytes) -> Reply:
        """Do as `HttpConnection.ask`. After an error the next request has a new connection."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.is_closed:
            await connection.close()
            connection = None
        connection = connection or await HttpConnection.open(self._address)
        try:
            reply = await connection.ask(request)
        except BaseException:
            connection.writer.close()
            raise
        if reply.keeps_open:
            self._connection = connection
        else:
            await connection.close()
        return reply

    async def close(self) -> None:
        """Close it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def request_bytes(method: str, path: str, *headers: str, body: bytes | None = None) -> bytes:
    """Return a request as it goes over the wire; a body brings its Content-Length."""
    length = () if body is None else (f"Content-Length: {len(body)}",)
    lines = (f"{method} {path} HTTP/1.1", "Host: benchmark", *headers, *length, "", "")
    return "\r\n".join(lines).encode() + (body or b"")


def binary_body(spec: TensorSpec, rows: Array) -> tuple[bytes, bytes]:
    """Return the JSON and the tensor of an inference request in binary, whose answer is to be in binary, too."""
    tensor = {
        "name": spec.name,
        "datatype": spec.dtype,
        "shape": list(rows.shape),
        "parameters": {"binary_data_size": rows.nbytes},
    }
    return json.dumps({"parameters": {"binary_data_output": True}, "inputs": [tensor]}).encode(), rows.tobytes()


def infer_bytes(model: str, head: bytes, blob: bytes) -> bytes:
    """Return the request with these two parts of a body."""
    length = f"Inference-Header-Content-Length: {len(head)}"
    return request_bytes("POST", f"/v2/models/{model}/infer", length, body=head + blob)
