"""What a request may ask of its run, over both protocols: deadlines, priorities, partial results; full queues; clients that hang up."""

from __future__ import annotations

import http.client
import socket
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from contract.repository import ALL_TASKS
from serving.server import BackgroundServer
from tests.serving.nets import TASK_NAMES, images, whole
from tests.serving.protocol.held_requests import (
    FORM_HEAD,
    NO_HEAD,
    Ask,
    Failing,
    Gated,
    Queue,
    ask_grpc,
    ask_http,
    grpc_request,
    infer_body,
    queue_before,
    raw_request,
    served,
    wait_for,
)
from tests.serving.protocol.http.test_http import PICTURE
from tests.serving.protocol.test_images import form
from tests.serving.protocol.test_protocols import Client

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute


@pytest.fixture(params=[ask_http, ask_grpc], ids=["http", "grpc"])
def ask(request: pytest.FixtureRequest) -> Ask:
    return request.param


TOO_LATE = (504, "DEADLINE_EXCEEDED")


def test_what_has_not_begun_when_its_time_is_up_never_runs(queue: Queue, ask: Ask) -> None:
    reply = queue.put(ask, 3, timeout=20_000).result(20)
    assert reply.status in TOO_LATE
    assert "The request's deadline has passed" in reply.sentence
    assert queue.engine.waiting_rows == 0
    queue.open()
    assert ask(queue.server, rows=2).status in (200, "OK")
    assert queue.engine.rows_of("trunk") == [1, 2]


def test_what_has_begun_when_its_time_is_up_goes_no_further(ask: Ask) -> None:
    engine = Gated()
    with served(engine) as server:
        assert ask(server, rows=3, timeout=20_000).status in TOO_LATE
        engine.gate.set()
        assert ask(server, rows=2, timeout=60_000_000).status in (200, "OK")
    assert engine.rows_of("trunk")[-1] == 2
    assert engine.rows_of("branch-late") == [2]


def test_the_deadline_of_a_grpc_call_holds_as_the_parameter_does(queue: Queue) -> None:
    with grpc.insecure_channel(queue.server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(grpc_request(rows=3), timeout=0.05)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    wait_for(lambda: queue.engine.waiting_rows == 0)  # the client's clock may be the first to say so
    queue.open()
    assert ask_grpc(queue.server, rows=2).status == "OK"
    assert queue.engine.rows_of("trunk") == [1, 2]


@pytest.mark.parametrize("parameters", [{"timeout": 0}, {"timeout": 2**63 - 1}, {"timeout": "60000000"}, {"priority": 2**63 - 1}])
def test_terms_that_hinder_nothing(queue: Queue, ask: Ask, parameters: dict[str, Any]) -> None:
    asked = queue.put(ask, 3, **parameters)
    queue.open()
    assert asked.result(20).status in (200, "OK")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"timeout": -1}, "'timeout' is -1; give a whole number, at least 0"),
        ({"timeout": "soon"}, "'timeout' is 'soon'; give a whole number"),
        ({"timeout": True}, "'timeout' is True; give a whole number"),
        ({"priority": -3}, "'priority' is -3; give a whole number, at least 0"),
        ({"partial_results": "yes"}, "'partial_results' is 'yes'; give true or false"),
        ({"partial_results": 1}, "'partial_results' is 1; give true or false"),
    ],
)
def test_terms_that_make_no_sense(server: BackgroundServer, ask: Ask, parameters: dict[str, Any], words: str) -> None:
    reply = ask(server, **parameters)
    assert (reply.status in (400, "INVALID_ARGUMENT"), words in reply.sentence) == (True, True), reply


def test_a_smaller_priority_number_goes_first(queue: Queue, ask: Ask) -> None:
    asked = [queue.put(ask, rows, priority=priority) for rows, priority in ((2, 3), (3, 0), (4, 2), (5, 1))]
    queue.open()
    assert {reply.result(20).status for reply in asked} <= {200, "OK"}
    assert queue.engine.rows_of("trunk") == [1, 5, 3, 4, 2]


def test_the_terms_as_tritonclient_sends_them(queue: Queue) -> None:
    def infer(module: Any, rows: int, **options: Any) -> str:
        client = Client(module, queue.server)
        try:
            client.infer("late", images(rows), **options)
        except InferenceServerException as error:
            return str(error.status())
        finally:
            client.client.close()
        return "OK"

    def put(module: Any, rows: int, **options: Any) -> Future[str]:
        before = queue.engine.waiting_rows
        asked = queue.pool.submit(infer, module, rows, **options)
        wait_for(lambda: queue.engine.waiting_rows == before + rows or asked.done())
        return asked

    modules = (tritonclient.http, tritonclient.grpc)
    assert [put(module, 6, timeout=20_000).result(20) for module in modules] == ["504", "StatusCode.DEADLINE_EXCEEDED"]
    asked = [put(module, rows + 2 * place, priority=3 - rows) for place, module in enumerate(modules) for rows in (1, 2)]
    queue.open()
    assert {reply.result(20) for reply in asked} == {"OK"}
    assert queue.engine.rows_of("trunk") == [1, 2, 4, 1, 3]


def test_a_task_that_fails_fails_the_request_which_says_so(ask: Ask) -> None:
    with served(Failing("head-parity")) as server:
        reply = ask(server, ALL_TASKS)
        assert reply.status in (503, "UNAVAILABLE")
        assert reply.sentence == f"Task 'parity' could not be computed: {NO_HEAD}"
        assert ask(server, "colour").status in (200, "OK")


def test_the_others_come_back_when_the_request_allows_it(ask: Ask) -> None:
    with served(Failing("head-parity")) as server:
        reply = ask(server, ALL_TASKS, partial_results=True)
        assert reply.status in (200, "OK")
        assert reply.outputs == tuple(sorted({*TASK_NAMES} - {"parity"}))
        assert reply.parameters == {"error.parity": NO_HEAD}
        assert ask(server, "parity", partial_results=True).status in (503, "UNAVAILABLE")  # nothing is left to give
        assert ask(server, "late", partial_results=True).parameters == {}


@pytest.mark.parametrize("module", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
@pytest.mark.parametrize("outputs", [("late", "parity", "cats", "probe"), ("parity", "late")], ids=["with one unknown", "known"])
def test_partial_results_as_tritonclient_reads_them(module: Any, outputs: tuple[str, ...]) -> None:
    with served(Failing("head-parity")) as server:
        client = Client(module, server)
        result = client.infer(ALL_TASKS, images(2), outputs, parameters={"partial_results": True})
        response = result.get_response() if client.is_http else result.get_response(as_json=True)
        found = response["parameters"]
        errors = {name: value if client.is_http else value["string_param"] for name, value in found.items()}
        unknown = {"error.cats": "Unknown task 'cats'; known are: colour, late, parity, probe."} if "cats" in outputs else {}
        assert errors == {"error.parity": NO_HEAD, **unknown}
        assert result.as_numpy("parity") is None
        for task in {*outputs} - {"parity", "cats"}:  # in binary over HTTP, by position over gRPC
            np.testing.assert_allclose(result.as_numpy(task), whole(task, images(2)), rtol=1e-5)
        with pytest.raises(InferenceServerException) as caught:
            client.infer(ALL_TASKS, images(1), ["cats"], parameters={"partial_results": True})
        assert caught.value.status() == client.status("400", "INVALID_ARGUMENT")
        client.client.close()


def test_a_share_that_is_full_says_whose_it_is_and_when_to_come_back(ask: Ask) -> None:
    with queue_before(Gated(max_queue_rows=4)) as queue:
        waiting = queue.put(ask, 3)
        reply = ask(queue.server, rows=1)
        assert reply.status in (429, "RESOURCE_EXHAUSTED")
        full = "3 rows are waiting for model 'late', whose share of the limit of 4 has no room for this request; try again later."
        assert reply.sentence == full
        assert reply.headers["retry-after"] == "1"
        assert reply.headers["x-request-id"]
        for body in (
            raw_request("/predict/late", PICTURE[:100]),
            raw_request("/predict?tasks=late", form(("a", PICTURE[:100])), FORM_HEAD),
        ):
            assert b"429 Too Many" in exchange(queue.server, body)  # known before it is found out that the image is truncated
        assert {'espalier_refused_total{limit="queue"} 3', 'espalier_queued_rows{model="late"} 3'} <= {*metrics(queue.server)}
        other = queue.put(ask, 1, model="probe")
        queue.open()
        assert {waiting.result(20).status, other.result(20).status} <= {200, "OK"}
        assert ask(queue.server, rows=1).status in (200, "OK")
        assert 'espalier_queued_rows{model="late"} 0' in metrics(queue.server)


def metrics(server: BackgroundServer) -> list[str]:
    with closing(http.client.HTTPConnection(server.http_address, timeout=20)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode().splitlines()


def exchange(server: BackgroundServer, request: bytes) -> bytes:
    """Return what comes back first."""
    host, port = server.http_address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        return connection.recv(4096)


@pytest.mark.parametrize(
    ("request_bytes", "rows"),
    [
        (raw_request("/v2/models/late/infer", infer_body(3)), 3),
        (raw_request("/predict/late", PICTURE), 1),
        (raw_request("/predict", form(("a", PICTURE), ("b", PICTURE)), FORM_HEAD), 2),
    ],
    ids=["infer", "predict", "form"],
)
def test_what_a_client_that_hangs_up_had_asked_for_does_not_run(queue: Queue, request_bytes: bytes, rows: int) -> None:
    with socket.create_connection(("127.0.0.1", queue.server.http_port), timeout=20) as connection:
        connection.sendall(request_bytes)
        wait_for(lambda: queue.engine.waiting_rows == rows)
    wait_for(lambda: queue.engine.waiting_rows == 0)
    queue.open()
    assert ask_http(queue.server, rows=2).status == 200
    assert queue.engine.rows_of("trunk") == [1, 2]


@pytest.mark.parametrize("stream", [False, True], ids=["call", "stream"])
def test_what_a_call_that_is_cancelled_had_asked_for_does_not_run(queue: Queue, stream: bool) -> None:
    with grpc.insecure_channel(queue.server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        message = grpc_request(rows=3)
        call = stub.ModelStreamInfer(iter([message])) if stream else stub.ModelInfer.future(message)
        wait_for(lambda: queue.engine.waiting_rows == 3)
        call.cancel()
        wait_for(lambda: queue.engine.waiting_rows == 0)
    queue.open()
    assert ask_grpc(queue.server, rows=2).status == "OK"
    assert queue.engine.rows_of("trunk") == [1, 2]
