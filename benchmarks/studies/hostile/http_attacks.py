"""Attacks on the reader of HTTP: heads, pipelines, chunks."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness.http_wire import request_bytes
from benchmarks.studies.hostile.attack import LOST, Attack, promised
from benchmarks.studies.hostile.send import http

_LINE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n"


def http_attacks(task: str, size: int) -> Iterator[Attack]:
    """Yield attacks of about `size` bytes before or around a body."""
    refused = frozenset(("431", "400", LOST))
    yield Attack("a long header", http(_LINE + b"X-A: " + b"a" * size + b"\r\n\r\n"), refused, promised())
    yield Attack("many headers", http(_LINE + b"A: b\r\n" * (size // 6) + b"\r\n"), refused, promised())
    yield Attack("a long name of a header", http(_LINE + b"a" * size + b": b\r\n\r\n"), refused, promised())
    yield Attack(
        "a long URL", http(b"GET /" + b"a" * size + b" HTTP/1.1\r\nHost: a\r\n\r\n"), frozenset(("414", "400", LOST)), promised()
    )
    yield Attack("a long method", http(b"G" * size + b" / HTTP/1.1\r\n\r\n"), frozenset(("400", "431", LOST)), promised())
    yield Attack("empty lines", http(b"\r\n" * (size // 2) + _last()), frozenset(("200", "400", "431", LOST)), promised())
    get = request_bytes("GET", "/v2/health/live")
    yield Attack("requests in a row", http(get * (size // len(get)) + _last()), frozenset(("200", LOST)), promised())
    post = request_bytes("POST", f"/v2/models/{task}/infer", body=b"{}")
    yield Attack("bad requests in a row", http(post * (size // len(post)) + _last()), frozenset(("400", LOST)), promised())
    chunked = request_bytes("POST", f"/v2/models/{task}/infer", "Transfer-Encoding: chunked", "Connection: close")
    answered = frozenset(("400", "413", "431", LOST))
    yield Attack(
        "chunks of a byte", http(chunked + b"1\r\na\r\n" * (size // 6) + b"0\r\n\r\n"), answered, promised(body=size // 6)
    )
    extended = b"1;" + b"e" * 1000 + b"\r\na\r\n"
    yield Attack("extensions of chunks", http(chunked + extended * (size // len(extended)) + b"0\r\n\r\n"), answered, promised())
    yield Attack("trailers", http(chunked + b"2\r\n{}\r\n0\r\n" + b"A: b\r\n" * (size // 6) + b"\r\n"), answered, promised())
    upgrade = request_bytes("POST", f"/v2/models/{task}/infer", "Connection: Upgrade, close", "Upgrade: h2c", body=b" " * size)
    yield Attack("Upgrade and a body", http(upgrade), frozenset(("400",)), promised(body=size))
    yield Attack(
        "two lengths", http(_LINE + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), frozenset(("400",)), promised()
    )
    yield Attack("no HTTP", http(bytes(size)), frozenset(("400", "431", LOST)), promised())


def _last() -> bytes:
    return request_bytes("GET", "/v2/health/live", "Connection: close")
