"""Limits of images on the wire: each a sentence, counted by its name, and none takes anything from those beside it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from contract.repository import Repository
from serving.images.decode import ImageLimits
from serving.limits import Limits
from serving.protocol.http.multipart import read_files
from serving.server import BackgroundServer
from tests.processor_time import least_s
from tests.serving.images.test_helpers import HARD, children, has_ended, processor_s
from tests.serving.pictures import file, many_scans, run_lengths, segment
from tests.serving.process.test_process import started
from tests.serving.protocol.http.test_http import PICTURE, Http
from tests.serving.protocol.test_images import FORM, form

LIMITS = ImageLimits(
    max_bytes=1 << 20, max_pixels=17_000_000, max_files=3, max_total_pixels=34_000_000, max_waiting_pixels=20_000_000
)
NARROW = file("PNG", Image.new("1", (1, 400_000)))
SLOW = replace(LIMITS, max_pixels=170_000_000)


@pytest.fixture(scope="module")
def strict(repository: Repository) -> Iterator[BackgroundServer]:
    with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1, limits=Limits(images=LIMITS)) as running:
        yield running


@pytest.fixture(scope="module")
def slow(repository: Repository) -> Iterator[BackgroundServer]:
    """One that lets a picture in which takes some seconds."""
    with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1, limits=Limits(images=SLOW)) as running:
        yield running


def ask(server: BackgroundServer, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    http = Http(server)
    with contextlib.closing(http.connection):
        return http("POST", path, body, **headers)


def metric(server: BackgroundServer, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.http_address}/metrics", timeout=20) as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "limit", "words"),
    [
        (many_scans(4100, 13), "image/jpeg", 400, "scans", "13 scans of 16810000 pixels, and 204000000 pixels in all scans"),
        (many_scans(4200, 2), "image/jpeg", 400, "pixels", "more than the limit of 17000000 pixels"),
        (form(("a", NARROW)), FORM, 400, "pixels", "which would be resized to"),
        (form(*[("a", many_scans(4000, 2))] * 3), FORM, 400, "pixels", "more than the limit of 34000000 pixels together"),
        (form(*[("a", PICTURE)] * 4), FORM, 400, "files", "more than the limit of 3 files"),
        (b"\xff\xd8" + segment(0xFE, b"") * 70_000, "image/jpeg", 400, "sections", "more than the limit of 65536 sections"),
        (form(("a", bytes(2 << 20))), FORM, 413, "image_bytes", "larger than the limit of 1048576 bytes"),
    ],
)
def test_a_limit_that_strikes_is_a_sentence_and_counted(
    strict: BackgroundServer, body: bytes, content_type: str, status: int, limit: str, words: str
) -> None:
    name = f'espalier_refused_total{{limit="{limit}"}}'
    before = metric(strict, name)
    code, answer = ask(strict, "/predict", body, content_type=content_type)
    assert (code, words in answer["error"]) == (status, True), answer
    assert metric(strict, name) == before + 1
    assert ask(strict, "/predict", PICTURE)[0] == 200


def decoder(server: BackgroundServer, others: set[int]) -> int:
    """Return the process that decodes for `server`, and waits for work: one that has only begun when it is cancelled is kept."""
    assert ask(server, "/predict", many_scans(4000, 9))[0] == 200
    (pid,) = children() - others
    return pid


def test_time_counts_while_a_picture_is_decoded_and_ends_the_decoding(slow: BackgroundServer) -> None:
    mine = decoder(slow, children())
    code, answer = ask(slow, "/predict?timeout=1000000", HARD)
    assert (code, "deadline has passed" in answer["error"]) == (504, True)
    eventually(lambda: has_ended(mine))
    assert ask(slow, "/predict", PICTURE)[0] == 200


def asking(server: BackgroundServer, body: bytes) -> socket.socket:
    """Return a connection on which a picture has been sent."""
    client = socket.create_connection(tuple_of(server.http_address))
    client.sendall(f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return client


def test_a_client_that_leaves_ends_the_decoding(slow: BackgroundServer) -> None:
    mine = decoder(slow, children())
    used_s = processor_s(mine)
    with asking(slow, HARD):
        eventually(lambda: processor_s(mine) > used_s + 0.2)
    eventually(lambda: has_ended(mine))


def test_what_waits_is_in_the_gauge_and_what_cannot_wait_is_counted(slow: BackgroundServer) -> None:
    before = metric(slow, 'espalier_refused_total{limit="waiting_pixels"}')
    with contextlib.ExitStack() as clients:
        costly = [clients.enter_context(asking(slow, HARD)) for _ in range(5)]
        eventually(lambda: metric(slow, "espalier_waiting_pixels") >= 16_000_000)
        assert ask(slow, "/predict", PICTURE)[0] == 200
        answered = select.select(costly, [], [], 20)[0]
        eventually(lambda: metric(slow, 'espalier_refused_total{limit="waiting_pixels"}') > before)
        assert {client.recv(12) for client in answered} == {b"HTTP/1.1 429"}
    eventually(lambda: metric(slow, "espalier_waiting_pixels") == 0)  # nobody waits for them any more


def test_the_end_of_a_server_does_not_wait_for_a_decoder(repository: Repository) -> None:
    others = children()  # of servers of other tests, which keep an idle one for a while
    ports = {"http_port": 0, "grpc_port": 0}
    with (
        ThreadPoolExecutor(1) as client,
        BackgroundServer(repository.path, **ports, threads=1, limits=Limits(images=SLOW), grace_s=0.0) as server,
    ):
        cut_off = client.submit(ask, server, "/predict", HARD)
        eventually(lambda: children() - others)
    assert cut_off.exception() is not None or cut_off.result()[0] >= 500
    eventually(lambda: not children() - others)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("filename=a.png", "a.png"),
        ('filename="a;b\\"c.png"', 'a;b"c.png'),
        ("filename*=utf-8''na%C3%AFve.png", "naïve.png"),
        ("filename*0=na; filename*1=me.png", "name.png"),
        ("filename=a.png; filename*=utf-8''b.png", "a.png"),
        ("filename*=nonsense''%ff", "\xff"),
    ],
)
def test_names_of_files_are_read_however_they_are_written(header: str, name: str) -> None:
    body = form(("x", b"data")).replace(b'filename="x"', header.encode())
    assert [found.name for found in read_files(body, FORM, 4, 100)] == [name]


@pytest.mark.parametrize(
    "body",
    [
        form(("x", b"data")).replace(b"\r\n\r\n", b"\r\nA: b" * 5000 + b"\r\n\r\n", 1),
        form(("x", b"data")).replace(b"\r\n\r\n", b"\r\nA: " + b"b" * 5000 + b"\r\n\r\n", 1),
        form(("x", b"data")).replace(b"\r\n\r\n", b"\r\n" + b"A" * 5000 + b": b\r\n\r\n", 1),
    ],
)
def test_headers_of_a_part_are_few_and_short(body: bytes) -> None:
    with pytest.raises(Exception, match="The form is malformed"):
        read_files(body, FORM, 4, 100)


def test_forms_that_look_like_boundaries_take_time_in_proportion() -> None:
    times = []
    for size in (500_000, 2_000_000):
        body = form(("x", b"\r\n--x1y\r\n--\r" * (size // 12)))
        times.append(least_s(lambda body=body: read_files(body, FORM, 4, 4 << 20)))  # type: ignore[misc]
    assert times[1] < 8 * times[0] + 0.05


def tuple_of(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


@pytest.mark.slow
def test_sigterm_ends_a_server_in_time_whatever_is_decoded(repository: Repository, tmp_path: Path) -> None:
    """The largest picture of run lengths is decoded in Python, for some seconds; then the decoders are gone, too."""
    body = run_lengths(7000, b"\1\0\0\0" * 7000)
    ports = ("--http-port", "0", "--grpc-port", "0", "--drain-s", "0")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = ("-m", "espalier.cli", "serve", str(repository.path), *ports)
    with started(*command, env=environment) as server, socket.create_connection(("127.0.0.1", server.http_port)) as client:
        client.sendall(f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        eventually(lambda: children(server.process.pid))
        (decoder,) = children(server.process.pid)
        server.process.send_signal(signal.SIGTERM)
        assert server.wait()[0] == 0
        eventually(lambda: has_ended(decoder))
