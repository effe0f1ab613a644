"""A body belongs to its request, whatever the request asks for beside and in whatever packets it comes: for any server behind."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.process.sockets import listening_socket
from serving.protocol.http.connection.server import HttpServer
from serving.server import BackgroundServer
from tests.serving.nets import images, whole

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
TOKENS = ("h2c", "websocket", "foo", "h2c, websocket", "HTTP/2.0", "")
CONNECTIONS = ("Upgrade", "Upgrade, HTTP2-Settings", "keep-alive, upgrade", "upgrade, close")


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what has been understood."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    kept = [name.decode() for name, _ in scope["headers"] if name.startswith(b"x-")]
    found = [scope["method"], scope["path"], scope["query_string"].decode(), kept, body.decode("latin-1")]
    answer = json.dumps(found).encode()
    length = (b"content-length", str(len(answer)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": answer})


@pytest.fixture(scope="module")
def echo_port() -> Iterator[int]:
    """The project's HTTP server with an application that says what it was asked."""
    listener, started, stop = listening_socket("127.0.0.1", 0), threading.Event(), threading.Event()

    async def serve() -> None:
        server = HttpServer(echo, listener, 0.0)
        await server.start()
        started.set()
        await asyncio.to_thread(stop.wait)
        await server.aclose()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    started.wait()
    yield listener.getsockname()[1]
    stop.set()
    thread.join()
    listener.close()


@dataclass(frozen=True)
class Request:
    """A request as it is sent. framing: how the length of its body is told. upgrade: the headers that ask for another protocol."""

    number: int
    body: bytes = SMUGGLED
    framing: str = "length"
    upgrade: Sequence[tuple[str, str]] = ()
    version: str = "1.1"

    def sent(self) -> bytes:
        headers = [("Host", "x"), ("X-Empty", ""), *self.upgrade, (f"X-Number-{self.number}", "1")]
        body = self.body
        if self.framing == "chunked":
            headers.append(("Transfer-Encoding", "chunked"))
            pieces = [body[:7], body[7:]]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"
        elif self.framing == "length":
            headers.append(("Content-Length", str(len(body))))
        head = f"{self.method} /at/{self.number}?q={self.number} HTTP/{self.version}\r\n"
        return (head + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n").encode() + body

    @property
    def method(self) -> str:
        return "GET" if self.framing == "none" else "POST"

    def understood(self) -> list[Any]:
        names = ["x-empty", f"x-number-{self.number}"]
        body = "" if self.framing == "none" else self.body.decode()
        return [self.method, f"/at/{self.number}", f"q={self.number}", names, body]


def ask(token: str = "h2c", connection: str = "Upgrade, HTTP2-Settings") -> tuple[tuple[str, str], ...]:
    return (("Connection", connection), ("Upgrade", token), ("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA"))


def answers(port: int, packets: Sequence[bytes], count: int, pause_s: float = 0.0) -> list[Any]:
    """Return the bodies of `count` answers to what is sent; then the server must have nothing more to say, or have closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for packet in packets:
            raw.sendall(packet)
            time.sleep(pause_s)
        return read(raw, count)


def read(raw: socket.socket, count: int) -> list[Any]:
    """Return `count` answers; "100 Continue" is none."""
    found, received = [], b""
    while len(found) < count:
        head, end, rest = received.partition(b"\r\n\r\n")
        if end and b" 100 " in head[:13]:
            received = rest
            continue
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) if end else 0
        if end and len(rest) >= length:
            found.append(json.loads(rest[:length]))
            received = rest[length:]
            continue
        more = raw.recv(65536)
        assert more, f"closed after {found} and {received!r}"
        received += more
    assert not received
    return found


@pytest.mark.slow
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_is_its_requests_wherever_packets_part(echo_port: int, framing: str) -> None:
    first, second = Request(1, framing=framing, upgrade=ask()), Request(2, b"", "none", ask("websocket", "Upgrade"))
    data = first.sent() + second.sent()
    for place in range(1, len(data)):
        packets = [data[:place], data[place:]]
        assert answers(echo_port, packets, 2, 0.0005) == [first.understood(), second.understood()], place
    assert answers(echo_port, [bytes([byte]) for byte in data], 2) == [first.understood(), second.understood()]


upgrades = st.one_of(st.just(()), st.builds(ask, st.sampled_from(TOKENS), st.sampled_from(CONNECTIONS[:3])))
bodies = st.sampled_from([SMUGGLED, SMUGGLED * 3, b"", b"0\r\n\r\n" + SMUGGLED])
requests = st.builds(Request, st.integers(0, 9), bodies, st.sampled_from(["length", "chunked", "none"]), upgrades)


@settings(max_examples=60)
@given(st.lists(requests, min_size=1, max_size=5), st.lists(st.integers(0, 2000), max_size=4))
@example([Request(0, upgrade=ask(token, connection)) for token in TOKENS for connection in CONNECTIONS[:3]], [])
@example([Request(1, b"x" * 300_000, "chunked", ask()), Request(2, upgrade=ask())], [])
def test_requests_one_after_the_other_are_those_that_were_sent(echo_port: int, sent: list[Request], places: list[int]) -> None:
    sent = [Request(r.number, b"" if r.framing == "none" else r.body, r.framing, r.upgrade) for r in sent]
    data = b"".join(request.sent() for request in sent)
    ends = [0, *sorted({place for place in places if 0 < place < len(data)}), len(data)]
    packets = [data[start:end] for start, end in pairwise(ends)]
    assert answers(echo_port, packets, len(sent), 0.0005) == [request.understood() for request in sent]


def test_many_requests_in_one_packet_are_all_answered(echo_port: int) -> None:
    sent = [Request(number, upgrade=ask()) for number in range(400)]
    assert answers(echo_port, [b"".join(request.sent() for request in sent)], 400) == [one.understood() for one in sent]


@pytest.mark.parametrize(
    "request_",
    [
        Request(1, upgrade=ask(connection="upgrade, close")),
        Request(1, upgrade=ask(connection="Upgrade"), version="1.0"),
        Request(1, upgrade=ask(connection="keep-alive, Upgrade"), version="1.0"),
    ],
    ids=["close", "1.0", "1.0-keep-alive"],
)
def test_a_connection_that_ends_answers_its_request(echo_port: int, request_: Request) -> None:
    with socket.create_connection(("127.0.0.1", echo_port), timeout=20) as raw:
        raw.sendall(request_.sent())
        assert read(raw, 1) == [request_.understood()]
        assert raw.recv(1) == b""  # the end, and no answer to what the body holds


def test_a_client_that_waits_for_100_continue_gets_it(echo_port: int) -> None:
    request = Request(1, upgrade=(*ask(), ("Expect", "100-continue")))
    data = request.sent()
    with socket.create_connection(("127.0.0.1", echo_port), timeout=20) as raw:
        raw.sendall(data[: -len(SMUGGLED)])
        assert raw.recv(65536).startswith(b"HTTP/1.1 100 ")
        raw.sendall(SMUGGLED)
        assert read(raw, 1) == [request.understood()]


@pytest.mark.parametrize("upgrade", [(), ask()], ids=["plain", "upgrade"])
def test_what_follows_a_body_is_no_header(echo_port: int, upgrade: tuple[tuple[str, str], ...]) -> None:
    request = Request(1, framing="chunked", upgrade=upgrade)
    data = request.sent().removesuffix(b"\r\n") + b"X-Late: 1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    assert answers(echo_port, [data + Request(2).sent()], 2) == [request.understood(), Request(2).understood()]


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n%s\r\n0\r\n\r\n", "Content-Length"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n%s\r\nab", "Content-Length"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n%s\r\nab", "Transfer-Encoding"),
        (b"CONNECT other:80 HTTP/1.1\r\nHost: x\r\n%s\r\n", "CONNECT is for proxies"),
        (b"CONNECT /at/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n%s\r\nabc", "CONNECT is for proxies"),
        (b"BREW /at/1 HTTP/1.1\r\nHost: x\r\n%s\r\n", "method"),
    ],
)
@pytest.mark.parametrize("upgrade", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"], ids=["plain", "upgrade"])
def test_what_is_no_request_is_refused_and_ends_the_connection(echo_port: int, sent: bytes, words: str, upgrade: bytes) -> None:
    with socket.create_connection(("127.0.0.1", echo_port), timeout=20) as raw:
        raw.sendall(sent % upgrade + SMUGGLED)
        received = b"".join(iter(lambda: raw.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1 ") == 2  # the status line, and the sentence
    sentence = json.loads(received.partition(b"\r\n\r\n")[2])["error"]
    assert sentence.startswith("The request is not HTTP/1.1 that can be read: ")
    assert words in sentence


def test_nobody_is_told_to_install_anything(echo_port: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for token in TOKENS:
            answers(echo_port, [Request(1, upgrade=ask(token)).sent()], 1)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


INFER = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": images(1).ravel().tolist()}]}


def check_inference(text: str) -> None:
    for line in text.strip().splitlines():
        np.testing.assert_allclose(json.loads(line)["outputs"][0]["data"], whole("late", images(1))[0], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("java"), reason="Java's own client needs a JDK, and there is no `java`")
def test_javas_own_client_gets_answers(server: BackgroundServer) -> None:
    url = f"http://{server.http_address}/v2/models/late/infer"
    run = subprocess.run(
        ["java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", str(Path(__file__).with_name("Post.java")), url, json.dumps(INFER)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "error: compiling" in run.stderr or "jdk.compiler" in run.stderr:
        pytest.skip("Java's own client needs a JDK; this is a runtime without its compiler")
    assert run.returncode == 0, run.stderr
    assert len(run.stdout.splitlines()) == 3
    check_inference(run.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("curl"), reason="there is no `curl`")
@pytest.mark.parametrize("options", [[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"]])
def test_curl_that_would_rather_speak_http_2_gets_answers(server: BackgroundServer, options: list[str]) -> None:
    command = ["curl", "-sS", "--http2", "--noproxy", "*", *options, "--data-binary", json.dumps(INFER)]
    run = subprocess.run(
        [*command, f"http://{server.http_address}/v2/models/late/infer"], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    check_inference(run.stdout)
