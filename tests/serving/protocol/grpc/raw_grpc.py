"""A gRPC client of a few frames, which says no more than it is told to: half a message, or never that it has read something."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_STREAM, _END_HEADERS = 1, 4
_FRAME_BYTES = 16_384
_WINDOW = 65_535
TAKEN_BYTES = 100  # of an answer
_ROOM = b"\x00\x04" + TAKEN_BYTES.to_bytes(4, "big")


class RawCall:
    """A call on a connection of its own. method: with its path. declared: the size of the one message; None: all that is sent."""

    def __init__(self, port: int, method: str, data: bytes, declared: int | None = None) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, _ROOM) + _frame(_HEADERS, _END_HEADERS, 1, _headers(method)))
        message = b"\x00" + (len(data) if declared is None else declared).to_bytes(4, "big") + data
        assert len(message) < _WINDOW  # nobody here waits for more room
        for start in range(0, len(message), _FRAME_BYTES):
            self._connection.sendall(_frame(_DATA, 0, 1, message[start : start + _FRAME_BYTES]))
        if declared is None:
            self._connection.sendall(_frame(_DATA, _END_STREAM, 1, b""))

    def until_end(self) -> int:
        """Return how many bytes of data came until the server ended the call, or the connection."""
        received = 0
        with self._connection.makefile("rb") as frames:
            while head := frames.read(9):
                payload = frames.read(int.from_bytes(head[:3], "big"))
                is_headers, is_data = head[3] == _HEADERS, head[3] == _DATA
                received += len(payload) * is_data
                if (is_headers or is_data) and head[4] & _END_STREAM:
                    break
        return received

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _headers(method: str) -> bytes:
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    words = [word.encode() for field in fields.items() for word in field]
    return b"".join(b"\x00" * (place % 2 == 0) + bytes([len(word)]) + word for place, word in enumerate(words))
