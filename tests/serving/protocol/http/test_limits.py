"""What a connection may cost before its request is known, from the outside: bytes on a socket in, an answer or the end out."""

from __future__ import annotations

import gc
import http.client
import json
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serving.limits import Limits
from serving.protocol.http.connection.limits import HttpLimits
from serving.server import BackgroundServer
from tests.serving.protocol.http.echo_server import EchoServer

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
SHORT = HttpLimits(silent_s=0.2, keep_alive_s=0.2, head_s=0.2, body_s=0.2, unread_s=0.2)
LONG_S = 20.0  # until a test fails


@pytest.fixture(scope="module")
def echo() -> Iterator[EchoServer]:
    """One with the usual limits."""
    with EchoServer() as server:
        yield server


@pytest.fixture
def hasty() -> Iterator[EchoServer]:
    """One whose times are short."""
    with EchoServer(SHORT) as server:
        yield server


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


def chunks(body: bytes, size: int, extension: bytes = b"") -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    framed = b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)
    return b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"


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
        for number in range(count):
            raw.sendall(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            if number % 500 == 499:
                made.append(sum(isinstance(one, RequestResponseCycle) for one in gc.get_objects()))
        received = b""
        while received.count(b"HTTP/1.1 200") < count or not received.endswith(b'["/%d", 0]' % (count - 1)):
            received += raw.recv(1 << 20)
        assert re.findall(rb'\["/(\d+)", 0\]', received) == [b"%d" % number for number in range(count)]
        assert echo.most_at_once == 1
        assert max(made) < 20


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


HALF = {
    "silent": (b"", "silent", 0),
    "head": (b"GET /a HTTP/1.1\r\nHo", "head_time", 408),
    "no body": (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", "body_time", 408),
    "half a body": (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", "body_time", 408),
    "half a chunk": (b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "body_time", 408),
}


@pytest.mark.parametrize("kind", HALF)
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
def test_what_does_not_come_is_not_waited_for(hasty: EchoServer, kind: str, before: bytes) -> None:
    sent, limit, status = HALF[kind]
    with closing(hasty.connect(before)) as raw:
        if before:
            assert status_of(raw) == 200
            raw.sendall(sent)
        elif sent:
            raw.sendall(sent)
        assert refused_with(raw)[0] == status
    idle = kind == "silent" and before  # it was kept for as long as idle connections are
    assert hasty.refused == ({} if idle else {limit: 1})
    until(lambda: hasty.left == ("bod" in kind or "chunk" in kind))


def test_a_head_has_its_time_as_a_whole_and_a_body_its_rate(hasty: EchoServer) -> None:
    for start, piece, limit in (
        (b"GET /a HTTP/1.1\r\nx: ", b"x", "head_time"),
        (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", b"x", "body_time"),
    ):
        with closing(hasty.connect(start)) as raw:
            while not select.select([raw], [], [], 0.02)[0]:
                raw.sendall(piece)  # always something
            assert status_of(raw) == 408
        assert hasty.refused[limit] == 1


def test_a_body_that_keeps_coming_may_take_its_time(hasty: EchoServer) -> None:
    with closing(hasty.connect(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 80000\r\n\r\n")) as raw:
        for _ in range(40):
            raw.sendall(b"x" * 2000)
            time.sleep(0.02)
        assert status_of(raw) == 200
    assert not hasty.refused


@pytest.mark.slow
def test_nobody_is_blamed_for_what_the_server_does_not_read_or_answer(hasty: EchoServer) -> None:
    body = bytes(3_000_000)
    with closing(hasty.connect(b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))) as raw:
        raw.setblocking(False)
        sent, end = 0, time.monotonic() + 1
        while time.monotonic() < end:
            try:
                sent += raw.send(body[sent:])
            except BlockingIOError:
                time.sleep(0.01)
        hasty.gate.set()
        raw.settimeout(LONG_S)
        raw.sendall(body[sent:])
        assert status_of(raw) == 200
    assert not hasty.refused


@pytest.mark.slow
def test_a_client_has_its_whole_time_after_the_server_did_not_read() -> None:
    sent = b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 65601\r\n\r\n" + bytes(65_600)
    with EchoServer(replace(SHORT, body_s=0.8)) as echo, closing(echo.connect(sent)) as raw:
        until(lambda: echo.order == ["/late"])
        time.sleep(1.2)  # a little more than 64 KiB are there, and nobody wants them: nothing is read
        echo.gate.set()
        time.sleep(0.2)
        raw.sendall(b"x")
        assert status_of(raw) == 200


def test_answers_that_nobody_reads_count_until_they_are_given_up(hasty: EchoServer) -> None:
    with closing(hasty.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")) as raw:
        until(lambda: hasty.pending.bytes > 1_000_000)
        until(lambda: hasty.refused["unread"] == 1)
        until(lambda: hasty.pending.bytes == 0)
        assert len(rest_of(raw)) < hasty.large


def test_an_answer_that_is_read_slowly_is_read_whole(hasty: EchoServer) -> None:
    with closing(hasty.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")) as raw:
        received = 0
        while received <= hasty.large:
            received += len(raw.recv(200_000))
            time.sleep(0.01)
        until(lambda: hasty.pending.bytes == 0)
    assert not hasty.refused


@pytest.mark.slow
def test_the_end_waits_for_nobody_who_does_nothing() -> None:
    with EchoServer(grace_s=600) as echo, ExitStack() as stack:
        for sent, _, _ in HALF.values():
            stack.enter_context(closing(echo.connect(sent)))
        stack.enter_context(closing(echo.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")))
        stack.enter_context(closing(echo.connect(b"BREW\r\n\r\n")))
        until(lambda: len(echo.order) == 4)
        assert echo.stop(LONG_S)


def test_there_are_so_many_connections_and_the_longest_idle_goes_first() -> None:
    with EchoServer(replace(HttpLimits(), connections=3)) as echo, ExitStack() as stack:

        def one(sent: bytes) -> socket.socket:
            return stack.enter_context(closing(echo.connect(sent)))

        busy = [one(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(2)]
        until(lambda: len(echo.order) == 2)
        for _ in range(10):
            idle = one(GET)
            assert status_of(idle) == 200
        assert echo.refused == {"connections": 9}
        busy.append(one(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"))
        until(lambda: echo.order.count("/wait") == 3)
        assert rest_of(idle) == b""
        turned_away = refused_with(one(GET))
        assert turned_away == (503, "All connections that this server may have are open and in use; try again later.")
        echo.gate.set()
        assert [status_of(raw) for raw in busy] == [200] * 3
        until(lambda: status_of(one(GET)) == 200)


def test_the_lines_about_it_are_few(caplog: pytest.LogCaptureFixture) -> None:
    with (
        EchoServer(replace(HttpLimits(), connections=1)) as echo,
        closing(echo.connect(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")),
    ):
        until(lambda: len(echo.order) == 1)
        for _ in range(50):
            with closing(echo.connect(GET)) as raw:
                assert refused_with(raw)[0] == 503
    with EchoServer() as echo:
        for _ in range(50):
            with closing(echo.connect(b"BREW / HTTP/1.1\r\n\r\n")) as raw:
                assert refused_with(raw)[0] == 400
    for words in ("turned away", "not HTTP/1.1"):
        assert len([record for record in caplog.records if words in record.message]) == 1


@pytest.mark.slow
def test_a_server_without_descriptors_goes_on_when_there_are_some() -> None:
    command = ["sh", "-c", 'ulimit -n 64; exec "$0" -m tests.serving.protocol.http.echo_server connections=1000', sys.executable]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline()))
        with ExitStack() as stack:
            for _ in range(200):
                stack.enter_context(socket.create_connection(address, LONG_S))
            time.sleep(0.3)
        with socket.create_connection(address, LONG_S) as raw:
            raw.sendall(GET)
            assert status_of(raw) == 200
        process.kill()


@pytest.mark.slow
def test_the_loop_stands_for_no_connection() -> None:
    hostile = [
        GET * 20_000,
        b"GET /a HTTP/1.1\r\n" + b"a:b\r\n" * 100_000,
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n\n\r\n" * 100_000 + b"0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nf0000\r\n" + b"\n\r\n" * 0x50000 + b"\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000),
    ]
    with EchoServer(measures=True) as echo:
        for data in hostile:
            with closing(echo.connect()) as raw:
                raw.setblocking(False)
                rest, end = memoryview(data), time.monotonic() + 0.5
                while rest and time.monotonic() < end:
                    try:
                        rest = rest[raw.send(rest) :]
                    except BlockingIOError:
                        time.sleep(0.001)
                    except OSError:
                        break
        echo.measures = False
        assert echo.longest_s <= 0.05


def test_others_have_their_turn_between_the_chunks_of_a_body() -> None:
    body = b"\n\r\n" * 80_000  # wherever it is cut
    with EchoServer(measures=True) as echo, closing(echo.connect(chunks(body, len(body)))) as raw:
        assert status_of(raw) == 200
        echo.measures = False
        assert echo.longest_s < echo.busy_s / 5


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
