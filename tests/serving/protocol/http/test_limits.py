"""What a connection may cost before its request is known, from the outside: bytes on a socket in, an answer or the end out."""

from __future__ import annotations

import gc
import json
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving.limits import Limits
from serving.protocol.http.connection.limits import HttpLimits
from serving.server import BackgroundServer
from tests.serving.protocol.http.echo_server import EchoServer
from tests.serving.protocol.http.raw import GET, LONG_S, answer_on, chunks, refused_with, rest_of, status_of, until


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    """One with the usual limits."""
    with EchoServer() as server:
        yield server


def padded(size: int) -> bytes:
    """Return a request whose head has `size` bytes, none of its headers very long."""
    lines = b"GET /a HTTP/1.1\r\nHost: x\r\n"
    while size - len(lines) - 2 > 2000:
        lines += b"p: %s\r\n" % (b"x" * 1000)
    return lines + b"q: %s\r\n\r\n" % (b"x" * (size - len(lines) - 7))


MOST = HttpLimits().head_bytes
AT_MOST = {
    "head": (lambda more: padded(MOST + more), 431, "line and headers are larger than the limit of 65536 bytes"),
    "url": (
        lambda more: b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"u" * (16383 + more)),
        414,
        "URL is longer than the limit of 16384 bytes",
    ),
    "headers": (lambda more: b"GET /a HTTP/1.1\r\n" + b"a: b\r\n" * (128 + more) + b"\r\n", 431, "more than 128 headers"),
}


@pytest.mark.parametrize("limit", AT_MOST)
@pytest.mark.parametrize("piece", [1 << 20, 4099, 1448])
def test_what_is_at_the_limit_is_answered_and_one_more_is_refused(echo: EchoServer, limit: str, piece: int) -> None:
    make, status, words = AT_MOST[limit]
    with closing(echo.connect()) as raw:
        for more in (0, 0, 1):
            data = make(more)
            for start in range(0, len(data), piece):
                raw.sendall(data[start : start + piece])
            if not more:
                assert status_of(raw) == 200
                before = echo.refused[limit]
        code, sentence = refused_with(raw)
    assert (code, words in sentence) == (status, True)
    assert echo.refused[limit] == before + 1


@pytest.mark.parametrize(
    ("start", "piece", "status"),
    [
        (b"GET /a HTTP/1.1\r\nx: ", b"a" * 1000, 431),
        (b"GET /a HTTP/1.1\r\n", b"a: b\r\n" * 100, 431),
        (b"GET /", b"a" * 1000, 414),
        (b"", b"\r\n" * 500, 431),
    ],
    ids=["header", "headers", "url", "nothing"],
)
def test_a_head_without_end_is_refused_before_much_of_it_has_come(
    echo: EchoServer, start: bytes, piece: bytes, status: int
) -> None:
    with closing(echo.connect(start)) as raw:
        sent = 0
        while not select.select([raw], [], [], 0)[0]:
            assert sent < 5_000_000
            sent += raw.send(piece)
        assert status_of(raw) == status


LONG_TRAILER = b"t: " + b"x" * 100_000 + b"\r\n\r\n"


@pytest.mark.parametrize("tail", [b"t: x\r\n" * 200 + b"\r\n", LONG_TRAILER, b"Content-Length: 1000000\r\n" + LONG_TRAILER])
def test_trailers_count(echo: EchoServer, tail: bytes) -> None:
    with closing(
        echo.connect(b"POST /wait HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + tail)
    ) as raw:
        assert refused_with(raw)[0] in (400, 431)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_small_chunks_are_read(echo: EchoServer, size: int) -> None:
    body = b"\n\r\n" * 30_000
    with closing(echo.connect(chunks(body, size))) as raw:
        assert answer_on(raw) == (200, b'["/c", %d]' % len(body))


def test_what_is_said_beside_chunks_counts(echo: EchoServer) -> None:
    with closing(echo.connect()) as raw:
        raw.setblocking(False)
        data = memoryview(chunks(b"x" * 2000, 1, b";e=" + b"y" * 1000))
        while data:
            try:
                data = data[raw.send(data) :]
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                break
        raw.settimeout(LONG_S)
        code, sentence = refused_with(raw)
    assert (code, sentence) == (400, "What frames the body's chunks is more than 8 times the body; send larger chunks.")


def test_requests_sent_ahead_wait_as_bytes_and_are_answered_in_order() -> None:
    with EchoServer() as echo, closing(echo.connect()) as raw:
        count = 3000
        made: list[int] = []
        before = cycles()
        for number in range(count):
            raw.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            if number % 500 == 499:
                made.append(cycles() - before)
        received = b""
        while received.count(b"HTTP/1.1 200") < count or not received.endswith(b'["/%d", 0]' % (count - 1)):
            received += raw.recv(1 << 20)
        assert re.findall(rb'\["/(\d+)", 0\]', received) == [b"%d" % number for number in range(count)]
        assert echo.most_at_once == 1
        assert max(made) < 20


def cycles() -> int:
    gc.collect()
    return sum(isinstance(one, RequestResponseCycle) for one in gc.get_objects())


def test_little_is_read_ahead_of_an_answer() -> None:
    with EchoServer() as echo, closing(echo.connect(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")) as raw:
        until(lambda: echo.order == ["/wait"])
        raw.setblocking(False)
        sent = stuck = 0
        while stuck < 50 and sent < 40_000_000:
            try:
                sent += raw.send(GET * 1000)
                stuck = 0
            except BlockingIOError:
                stuck += 1
                time.sleep(0.005)
        assert sent < 40_000_000  # the rest is in the kernel's buffers
        assert echo.order == ["/wait"]


def test_a_client_that_leaves_takes_its_work_back_though_much_waits_behind_it() -> None:
    with EchoServer() as echo, closing(echo.connect(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")) as raw:
        until(lambda: echo.order == ["/wait"])
        raw.sendall(
            GET * (90_000 // len(GET))
        )  # more than is read ahead, and no more than the kernel takes: else it would not say the end
        raw.close()
        until(lambda: echo.left == 1)
        assert echo.order == ["/wait"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["get", "length", "chunked", "upgrade"]), min_size=1, max_size=6),
    st.lists(st.integers(1, 400), max_size=6),
)
def test_requests_ahead_are_those_that_were_sent_however_they_come(echo: EchoServer, kinds: list[str], places: list[int]) -> None:
    body = b"GET /smuggled HTTP/1.1\r\n\r\n"
    wires = {
        "get": GET,
        "length": b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body),
        "chunked": chunks(body, 9),
        "upgrade": b"POST /b HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body),
    }
    says = {"get": ["/a", 0], "length": ["/b", len(body)], "chunked": ["/c", len(body)], "upgrade": ["/b", len(body)]}
    data = b"".join(wires[kind] for kind in kinds) + b"GET /end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with closing(echo.connect()) as raw:
        for start, end in zip([0, *sorted(places)], [*sorted(places), len(data)], strict=True):
            raw.sendall(data[start:end])
        found = [json.loads(text) for text in re.findall(rb'\["[^]]*\]', rest_of(raw))]
    assert found == [*(says[kind] for kind in kinds), ["/end", 0]]


def test_what_strikes_is_in_the_metrics(broken_repository: object) -> None:
    limits = Limits(http=HttpLimits(headers=3))
    with BackgroundServer(str(broken_repository), http_port=0, grpc_port=0, threads=1, limits=limits) as server:
        address = ("127.0.0.1", server.http_port)
        with socket.create_connection(address, LONG_S) as raw:
            raw.sendall(b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 4 + b"\r\n")
            assert refused_with(raw)[0] == 431
        with socket.create_connection(address, LONG_S) as raw:
            raw.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b'\nespalier_refused_total{limit="headers"} 1\n' in rest_of(raw)
