"""Request ids and log lines, over both protocols."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import logging
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.request import urlopen

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.repository import Repository
from serving.engines.in_memory import InMemoryEngine
from serving.observe.events import NullObserver, RequestRecord, request_id
from serving.observe.logs import AccessLog, make_handler
from serving.server import BackgroundServer
from tests.serving.nets import LAYERS, images
from tests.serving.protocol.http.test_http import PICTURE

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

_pb: Any = service_pb2
BODY = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": [2, 8, 8, 3], "data": images(2).ravel().tolist()}]}


class Records(NullObserver):
    """Keeps what was done; `wait` because a client has its answer a little before the server is done with it."""

    def __init__(self) -> None:
        self.done: list[RequestRecord] = []
        self._more = threading.Condition()

    def request_done(self, record: RequestRecord) -> None:
        with self._more:
            self.done.append(record)
            self._more.notify_all()

    def wait(self, count: int) -> list[RequestRecord]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.done) >= count, 20), self.done
            return self.done


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def own(repository: Repository, records: Records) -> Iterator[BackgroundServer]:
    observers = [records]
    with BackgroundServer(repository, InMemoryEngine(LAYERS), http_port=0, grpc_port=0, observers=observers) as running:
        yield running


@pytest.fixture
def stub(own: BackgroundServer) -> Iterator[Any]:
    with grpc.insecure_channel(own.grpc_address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def ask(server: BackgroundServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    with closing(http.client.HTTPConnection(server.http_address, timeout=20)) as connection:
        connection.request(method, path, body, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        response.read()
        ids = response.headers.get_all("x-request-id", [])
        assert len(ids) == 1
        return response.status, ids[0]


def grpc_request(model: str, rows: int = 2) -> Any:
    message = _pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="image", datatype="UINT8", shape=[rows, 8, 8, 3])
    message.raw_input_contents.append(images(rows).tobytes())
    return message


def id_of(call: Any) -> str:
    return dict(call.trailing_metadata())["x-request-id"]


@given(st.text(max_size=140))
def test_a_usable_id_is_kept_and_any_other_replaced(sent: str) -> None:
    found = request_id(sent)
    if re.fullmatch(r"[-A-Za-z0-9._:+/=@]{1,128}", sent):
        assert found == sent
    else:
        assert re.fullmatch("[0-9a-f]{16}", found)
        assert request_id(sent) != found


def test_http_returns_the_id_with_answers_and_with_refusals(own: BackgroundServer) -> None:
    assert ask(own, "GET", "/v2/health/live", x_request_id="abc-1") == (200, "abc-1")
    assert ask(own, "GET", "/v2/models/cats", x_request_id="abc-2") == (404, "abc-2")
    assert ask(own, "GET", "/nothing", x_request_id="x" * 128) == (404, "x" * 128)
    for wrong in ("x" * 129, "a b", 'a"b'):
        assert re.fullmatch("[0-9a-f]{16}", ask(own, "GET", "/v2", x_request_id=wrong)[1])
    assert ask(own, "GET", "/v2")[1] != ask(own, "GET", "/v2")[1]


def test_grpc_returns_the_id_with_answers_with_refusals_and_with_streams(stub: Any) -> None:
    _, call = stub.ModelInfer.with_call(grpc_request("late"), metadata=(("x-request-id", "abc-1"),))
    assert id_of(call) == "abc-1"
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(grpc_request("cats"), metadata=(("x-request-id", "abc-2"),))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    assert id_of(refused.value) == "abc-2"
    _, call = stub.ServerLive.with_call(_pb.ServerLiveRequest(), metadata=(("x-request-id", "a b"),))
    assert re.fullmatch("[0-9a-f]{16}", id_of(call))
    stream = stub.ModelStreamInfer(iter([grpc_request("late")] * 2), metadata=(("x-request-id", "abc-3"),))
    assert len(list(stream)) == 2
    assert id_of(stream) == "abc-3"


def test_what_is_known_of_an_http_request(own: BackgroundServer, records: Records) -> None:
    body = json.dumps(BODY)
    ask(own, "POST", "/v2/models/late/infer?x=1", body, x_request_id="abc")
    ask(own, "GET", "/v2/models/%0Acats")
    found, refused = records.wait(2)
    assert (found.protocol, found.method, found.model, found.rows) == ("http", "POST /v2/models/late/infer", "late", 2)
    assert (found.id, found.status, found.received_bytes) == ("abc", "200", len(body))
    assert found.sent_bytes > 50
    assert found.seconds > 0
    assert found.client.startswith("127.0.0.1:")
    assert (refused.status, refused.model, refused.method) == ("404", "", "GET /v2/models/%0Acats")


def test_what_is_known_of_an_rpc(stub: Any, records: Records) -> None:
    answer = stub.ModelInfer(grpc_request("late"))
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(grpc_request("cats"))
    list(stub.ModelStreamInfer(iter([grpc_request("late"), grpc_request("probe", 3)])))
    found, refused, stream = records.wait(3)
    assert (found.protocol, found.method, found.model, found.rows, found.status) == ("grpc", "ModelInfer", "late", 2, "OK")
    assert (found.received_bytes, found.sent_bytes) == (grpc_request("late").ByteSize(), answer.ByteSize())
    assert "127.0.0.1" in found.client
    assert (refused.status, refused.model) == ("NOT_FOUND", "")
    assert (stream.method, stream.model, stream.rows, stream.status) == ("ModelStreamInfer", "probe", 5, "OK")
    assert stream.received_bytes == sum(grpc_request(*what).ByteSize() for what in (("late",), ("probe", 3)))


@pytest.mark.parametrize("rpc", ["ModelInfer", "ModelStreamInfer"])
def test_what_the_client_gives_up_is_cancelled(repository: Repository, records: Records, rpc: str) -> None:
    busy = threading.Event()

    class Endless(InMemoryEngine):
        async def infer(self, *arguments: Any) -> Any:
            busy.set()
            await asyncio.sleep(60)

    with BackgroundServer(repository, Endless(LAYERS), http_port=0, grpc_port=0, observers=[records]) as server:
        with grpc.insecure_channel(server.grpc_address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            message = grpc_request("late")
            call = stub.ModelInfer.future(message) if rpc == "ModelInfer" else stub.ModelStreamInfer(iter([message]))
            assert busy.wait(20)
            call.cancel()
            assert [(record.status, record.method) for record in records.wait(1)] == [("CANCELLED", rpc)]
        assert 'version="1",reason="Cancelled"} 1\n' in metrics_of(server)


def metrics_of(server: BackgroundServer) -> str:
    with urlopen(f"http://{server.http_address}/metrics", timeout=20) as response:
        return str(response.read().decode())


def test_predict_names_all_tasks_and_counts_images_once(own: BackgroundServer, records: Records) -> None:
    assert ask(own, "POST", "/predict?tasks=late,probe", PICTURE)[0] == 200
    assert [(record.model, record.rows) for record in records.wait(1)] == [("late,probe", 1)]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_line_per_request_and_the_id_in_error_lines(repository: Repository, log_format: str) -> None:
    engine = InMemoryEngine({**LAYERS, "branch-late": lambda rows: rows @ "x"})
    stream = io.StringIO()
    handler = make_handler(log_format, stream)
    logger = logging.getLogger("serving")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    records = Records()
    observers = [AccessLog(), records]
    try:
        with BackgroundServer(repository, engine, http_port=0, grpc_port=0, observers=observers) as server:
            assert ask(server, "POST", "/v2/models/probe/infer", json.dumps(BODY), x_request_id="good-1")[0] == 200
            assert ask(server, "POST", "/v2/models/late/infer", json.dumps(BODY), x_request_id="bad-1")[0] == 503
            with grpc.insecure_channel(server.grpc_address) as channel:
                infer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer
                with pytest.raises(grpc.RpcError):
                    infer(grpc_request("late"), metadata=(("x-request-id", "bad-2"),))
            records.wait(3)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    check = check_json if log_format == "json" else check_console
    check(stream.getvalue())


def check_json(source: str) -> None:
    lines = [json.loads(line) for line in source.splitlines()]
    assert [(line["level"], line["request_id"]) for line in lines] == [
        ("info", "good-1"), ("error", "bad-1"), ("info", "bad-1"), ("error", "bad-2"), ("info", "bad-2"),
    ]  # fmt: skip
    good = lines[0]
    assert (good["method"], good["model"], good["status"], good["rows"]) == ("POST /v2/models/probe/infer", "probe", "200", 2)
    assert good["milliseconds"] > 0
    assert good["received_bytes"] == len(json.dumps(BODY))
    assert "Segment 'branch-late' failed" in lines[1]["message"]
    assert "Traceback" in lines[1]["exception"]
    assert (lines[4]["method"], lines[4]["status"]) == ("ModelInfer", "UNAVAILABLE")


def check_console(source: str) -> None:
    lines = [line for line in source.splitlines() if " id=" in line]
    assert [line.rpartition(" id=")[2] for line in lines] == ["good-1", "bad-1", "bad-1", "bad-2", "bad-2"]
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} INFO    POST /v2/models/probe/infer 200 \d+\.\d ms model=probe rows=2 ", lines[0])
    assert "Traceback" in source


def test_text_from_outside_cannot_make_lines() -> None:
    stream = io.StringIO()
    logger = logging.Logger("alone")
    logger.addHandler(make_handler("console", stream))
    logger.error("one\ntwo\x1b[31m %s", "three\r")
    assert stream.getvalue().count("\n") == 1
    assert r"one\x0atwo\x1b[31m three\x0d" in stream.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(("options", "logged"), [(["--log-format", "json"], True), ([], False), (["--access-log"], True)])
def test_the_command_logs_as_told(repository: Repository, options: list[str], logged: bool) -> None:
    command = [sys.executable, "-m", "espalier.cli", "serve", str(repository.path), "--http-port", "0", "--grpc-port", "0"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://(\S+) ", process.stdout.readline())
        assert found is not None
        with closing(http.client.HTTPConnection(found[1], timeout=20)) as connection:
            connection.request("GET", "/v2/health/ready", headers={"x-request-id": "abc"})
            assert connection.getresponse().status == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    lines = errors.splitlines()
    assert len(lines) == logged
    if "json" in options:
        assert json.loads(lines[0])["request_id"] == "abc"
    elif logged:
        assert "GET /v2/health/ready 200" in lines[0]
        assert lines[0].endswith("id=abc")
