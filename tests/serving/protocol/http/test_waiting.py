"""How long a connection is waited for, how many there are, and whom it holds up, from the outside."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from serving.protocol.http.connection.limits import HttpLimits
from tests.serving.protocol.http.echo_server import EchoServer
from tests.serving.protocol.http.raw import GET, LONG_S, chunks, refused_with, rest_of, status_of, until

SHORT = HttpLimits(silent_s=0.2, keep_alive_s=0.2, head_s=0.2, body_s=0.2, unread_s=0.2)


@pytest.fixture
def hasty() -> Iterator[EchoServer]:
    """One whose times are short."""
    with EchoServer(SHORT) as server:
        yield server


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
