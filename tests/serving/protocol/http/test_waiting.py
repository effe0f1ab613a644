"""How long a connection is waited for, how many there are, and whom it holds up, from the outside."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace

import pytest

from serving.protocol.http.connection.limits import HttpLimits
from tests.serving.protocol.http.echo_server import EchoServer
from tests.serving.protocol.http.raw import GET, LONG_S, chunks, refused_with, rest_of, status_of, until

STEP_S = 20.0  # of a server's clock: a third of the time that a body or an answer has


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    """One with the times of every server; its clock goes on as the test says."""
    with EchoServer() as server:
        yield server


TRIES = 5  # of what a busy machine may make longer, and never shorter


def hasty(*times: str) -> EchoServer:
    """Return one of which these times are short, and no others: a busy machine may take its time for the rest."""
    return EchoServer(replace(HttpLimits(), **dict.fromkeys(times, 0.2)))


HALF = {
    "silent": (b"", "silent", 0),
    "head": (b"GET /a HTTP/1.1\r\nHo", "head", 408),
    "no body": (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", "body", 408),
    "half a body": (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", "body", 408),
    "half a chunk": (b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "body", 408),
}


@pytest.mark.parametrize("kind", HALF)
@pytest.mark.parametrize("before", [b"", GET], ids=["first", "second"])
def test_what_does_not_come_is_not_waited_for(kind: str, before: bytes) -> None:
    sent, limit, status = HALF[kind]
    idle = kind == "silent" and before  # it is kept for as long as idle connections are
    with hasty("keep_alive_s" if idle else f"{limit}_s") as echo:
        with closing(echo.connect(before)) as raw:
            if before:
                assert status_of(raw) == 200
            raw.sendall(sent)
            assert refused_with(raw)[0] == status
        name = limit if limit == "silent" else f"{limit}_time"
        assert echo.refused == ({} if idle else {name: 1})
        until(lambda: echo.left == (limit == "body"))


def test_a_head_has_its_time_as_a_whole_and_a_body_its_rate() -> None:
    with hasty("head_s", "body_s") as echo:
        for start, piece, limit in (
            (b"GET /a HTTP/1.1\r\nx: ", b"x", "head_time"),
            (b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", b"x", "body_time"),
        ):
            with closing(echo.connect(start)) as raw:
                while not select.select([raw], [], [], 0.02)[0]:
                    raw.sendall(piece)  # always something
                assert status_of(raw) == 408
            assert echo.refused[limit] == 1


def test_a_body_that_keeps_coming_may_take_its_time(echo: EchoServer) -> None:
    pieces, size = 8, 40_000  # a little more a second than the slowest may send
    with closing(echo.connect(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (pieces * size))) as raw:
        for piece in range(1, pieces + 1):
            raw.sendall(b"x" * size)
            until(lambda piece=piece: echo.received == piece * size)  # type: ignore[misc]
            echo.later(STEP_S)
        assert status_of(raw) == 200
    assert not echo.refused


def test_nobody_is_blamed_for_what_the_server_does_not_read_or_answer(echo: EchoServer) -> None:
    body = bytes(3_000_000)
    with closing(echo.connect(b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))) as raw:
        until(lambda: echo.order == ["/late"])
        raw.setblocking(False)
        sent = 0
        for _ in range(5):
            with suppress(BlockingIOError):
                sent += raw.send(body[sent:])
            echo.later(STEP_S)
        echo.gate.set()
        raw.settimeout(LONG_S)
        raw.sendall(body[sent:])
        assert status_of(raw) == 200
    assert not echo.refused


def test_a_client_has_its_whole_time_after_the_server_did_not_read(echo: EchoServer) -> None:
    sent = b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 65601\r\n\r\n" + bytes(65_600)
    with closing(echo.connect(sent)) as raw:
        until(lambda: echo.order == ["/late"])
        for _ in range(4):  # a little more than 64 KiB are there, and nobody wants them: nothing is read
            echo.later(STEP_S)
        echo.gate.set()
        until(lambda: echo.received == 65_600)
        for _ in range(2):
            echo.later(STEP_S)
        raw.sendall(b"x")
        assert status_of(raw) == 200


def test_answers_that_nobody_reads_count_until_they_are_given_up() -> None:
    with hasty("unread_s") as echo, closing(echo.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")) as raw:
        until(lambda: echo.pending.bytes > 1_000_000 or echo.refused["unread"] == 1)
        until(lambda: echo.refused["unread"] == 1)
        until(lambda: echo.pending.bytes == 0)
        assert len(rest_of(raw)) < echo.large


def test_an_answer_that_is_read_slowly_is_read_whole(echo: EchoServer) -> None:
    echo.large = 30_000_000  # of which the kernel takes some millions at a time
    with closing(echo.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")) as raw:
        until(lambda: echo.pending.bytes > 1_000_000)
        received, steps, before = 0, 0, echo.unread()
        while received <= echo.large:
            piece = raw.recv(200_000)
            assert piece
            received += len(piece)
            if echo.unread() < before:
                before, steps = echo.unread(), steps + 1
                echo.later(STEP_S)
        until(lambda: echo.pending.bytes == 0)
    assert steps > 3
    assert not echo.refused


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
    for data in hostile:
        assert any(turn(data)[0] <= 0.05 for _ in range(TRIES))


def test_others_have_their_turn_between_the_chunks_of_a_body() -> None:
    data = chunks(b"\n\r\n" * 80_000, 240_000)  # wherever it is cut
    for _ in range(TRIES):
        longest_s, busy_s = turn(data)
        if longest_s < busy_s / 5:
            return
    pytest.fail(f"{longest_s} of {busy_s} s in one turn")


def turn(data: bytes) -> tuple[float, float]:
    """Send it; return the processor time of the server's longest turn, and of all of them."""
    with EchoServer(measures=True) as echo:
        with closing(echo.connect()) as raw:
            raw.settimeout(0.5)
            with suppress(OSError):
                raw.sendall(data)  # as much as it takes
            with suppress(OSError):
                raw.recv(1 << 16)
        echo.measures = False
    return echo.longest_s, echo.busy_s
