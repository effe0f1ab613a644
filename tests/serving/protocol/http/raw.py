"""Requests as bytes on a socket, and what comes back."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Callable

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
LONG_S = 20.0  # until a test fails


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def rest_of(raw: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    received = bytearray()
    try:
        while data := raw.recv(1 << 20):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received)


def answer_on(raw: socket.socket) -> tuple[int, bytes]:
    """Return status and body of the next answer, before which nothing else was sent."""
    response = http.client.HTTPResponse(raw)
    response.begin()
    return response.status, response.read()


def status_of(raw: socket.socket) -> int:
    return answer_on(raw)[0]


def refused_with(raw: socket.socket) -> tuple[int, str]:
    """Return status and sentence of the last answer before the end."""
    answers = re.split(rb"HTTP/1\.1 (?=\d{3} )", rest_of(raw))
    head, _, body = answers[-1].partition(b"\r\n\r\n")
    return (int(head[:3]), json.loads(body)["error"]) if head else (0, "")


def chunks(body: bytes, size: int, extension: bytes = b"") -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    return b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
