"""The limit on the bytes of all requests together, over both protocols: refused in one sentence, on connections that go on."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import grpc
import pytest
from tritonclient.grpc import service_pb2_grpc

from serving.server import BackgroundServer
from tests.serving.nets import make_repository
from tests.serving.protocol.held_requests import (
    Ask,
    Gated,
    ask_grpc,
    ask_http,
    grpc_request,
    infer_body,
    raw_request,
    wait_for,
)
from tests.serving.protocol.http.test_http import PICTURE, Http
from tests.serving.protocol.test_images import FORM, form

pytestmark = pytest.mark.slow

LIMIT = 20_000
SENTENCE = f"12000 bytes of requests are waiting and {LIMIT} is the limit; try again later."


@pytest.fixture(scope="module")
def engine() -> Gated:
    return Gated()


@pytest.fixture(scope="module")
def tight(engine: Gated) -> Iterator[BackgroundServer]:
    """A server that holds 20 kB, with its gate open."""
    engine.gate.set()
    with BackgroundServer(make_repository(), engine, http_port=0, grpc_port=0, max_pending_bytes=LIMIT) as server:
        yield server


def pending(server: BackgroundServer) -> int:
    with closing(http.client.HTTPConnection(server.http_address, timeout=20)) as connection:
        connection.request("GET", "/metrics")
        found = re.search(rb"^espalier_pending_bytes (\S+)$", connection.getresponse().read(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


@contextmanager
def half_sent(server: BackgroundServer, path: str = "/v2/models/late/infer", head: str = "") -> Iterator[socket.socket]:
    """A request of which 12,000 of 15,000 bytes have come; whoever enters has a connection on which the rest may follow."""
    with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 15000\r\n\r\n".encode() + b" " * 12_000)
        wait_for(lambda: pending(server) == 12_000)
        yield connection
    wait_for(lambda: pending(server) == 0)  # it hung up, or was answered


BODIES = {
    "infer": ("/v2/models/late/infer", infer_body(1) + b" " * 9000, ""),
    "predict": ("/predict/late", PICTURE + b" " * 9000, ""),
    "form": ("/predict", form(("a", PICTURE + b" " * 9000)), f"Content-Type: {FORM}\r\n"),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_what_does_not_fit_is_refused_and_its_connection_goes_on(tight: BackgroundServer, kind: str, chunked: bool) -> None:
    path, body, head = BODIES[kind]
    request = raw_request(path, body, head)
    if chunked:
        framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        request = f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode() + framed
    with socket.create_connection(("127.0.0.1", tight.http_port), timeout=20) as connection:
        with half_sent(tight):
            connection.sendall(request)
            response = http.client.HTTPResponse(connection)
            response.begin()
            assert (response.status, response.headers["retry-after"]) == (429, "1")
            assert json.loads(response.read()) == {"error": SENTENCE}
            assert pending(tight) == 12_000
        connection.sendall(request)  # the same again, now that there is room
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 200, response.read()


def test_what_fits_is_answered_beside_it_and_the_first_in_the_end(tight: BackgroundServer) -> None:
    with half_sent(tight) as connection:
        assert ask_http(tight).status == 200
        assert ask_grpc(tight).status == "OK"
        wait_for(lambda: pending(tight) == 12_000)  # a message counts until its answer is on its way
        connection.sendall(b" " * 3000)
        assert connection.recv(12) == b"HTTP/1.1 400"  # spaces are no JSON
        wait_for(lambda: pending(tight) == 0)


@pytest.mark.parametrize("path", ["/predict", "/predict/late"])
def test_images_count_while_they_come(tight: BackgroundServer, path: str) -> None:
    with half_sent(tight, path, f"Content-Type: {FORM}\r\n"):
        assert ask_http(tight).status == 200


def test_what_unpacks_to_more_is_refused(tight: BackgroundServer) -> None:
    body = gzip.compress(infer_body(1) + b" " * 15_000)
    with half_sent(tight):
        ask = Http(tight)
        assert ask("POST", "/v2/models/late/infer", body, Content_Encoding="gzip") == (429, {"error": SENTENCE})
        ask.connection.close()


def test_a_message_that_does_not_fit_is_refused(tight: BackgroundServer) -> None:
    with half_sent(tight), grpc.insecure_channel(tight.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(grpc_request(rows=50), timeout=20)
        error: grpc.Call = caught.value  # type: ignore[assignment]
        assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, SENTENCE)
        assert dict(error.trailing_metadata())["retry-after"] == "1"
        answers = list(stub.ModelStreamInfer(iter([grpc_request(rows=rows) for rows in (1, 50, 2)]), timeout=20))
        assert [answer.error_message for answer in answers] == ["", SENTENCE, ""]
        wait_for(lambda: pending(tight) == 12_000)


@pytest.mark.parametrize("ask", [ask_http, ask_grpc], ids=["http", "grpc"])
def test_what_waits_for_its_answer_counts_until_it_has_it(tight: BackgroundServer, engine: Gated, ask: Ask) -> None:
    engine.gate.clear()
    try:
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(ask(tight, rows=20).status), daemon=True)
        thread.start()
        wait_for(lambda: pending(tight) > 20 * 192)
    finally:
        engine.gate.set()
    thread.join(20)
    assert found in ([200], ["OK"])
    wait_for(lambda: pending(tight) == 0)


@pytest.mark.parametrize("how", ["call", "stream", "http"])
def test_what_nobody_waits_for_any_more_is_let_go_of(tight: BackgroundServer, engine: Gated, how: str) -> None:
    engine.gate.clear()
    engine.at_the_gate.clear()
    try:
        with (
            grpc.insecure_channel(tight.grpc_address) as channel,
            socket.create_connection(("127.0.0.1", tight.http_port)) as raw,
        ):
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            message = grpc_request(rows=20)
            if how == "http":
                raw.sendall(raw_request("/v2/models/late/infer", infer_body(20)))
            else:
                call = stub.ModelStreamInfer(iter([message])) if how == "stream" else stub.ModelInfer.future(message)
            wait_for(lambda: pending(tight) > 20 * 192)
            if how != "http":
                call.cancel()
        wait_for(lambda: pending(tight) == 0)
    finally:
        engine.gate.set()
