"""Traces, with OpenTelemetry's own exporter to memory."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tritonclient.grpc import service_pb2_grpc

from contract.errors import ExtraNeeded
from contract.repository import Repository
from serving.engines.in_memory import InMemoryEngine
from serving.observe.setup import configured, make_observation
from serving.observe.traces import Traces
from serving.server import BackgroundServer
from tests.serving.nets import CHAINS, LAYERS
from tests.serving.observe.test_requests import Records, ask, grpc_request
from tests.serving.protocol.http.test_http import PICTURE

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Traced:
    """A server whose spans stay here."""

    def __init__(self, repository: Repository, functions: Any = LAYERS) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._records = Records()
        observers = [Traces(provider), self._records]
        self.server = BackgroundServer(repository, InMemoryEngine(functions), http_port=0, grpc_port=0, observers=observers)

    def spans(self) -> tuple[Any, list[Any]]:
        """Return the span of the only request, and its children in order."""
        self._records.wait(1)
        *runs, request = self._exporter.get_finished_spans()
        return request, runs


def test_an_http_request_continues_the_clients_trace_with_a_span_per_run(repository: Repository) -> None:
    traced = Traced(repository)
    with traced.server as server:
        _, request_id = ask(server, "POST", "/predict/late", PICTURE, traceparent=TRACEPARENT, tracestate="vendor=1")
    request, runs = traced.spans()
    assert (request.name, request.kind) == ("POST", SpanKind.SERVER)
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    assert request.context.trace_state["vendor"] == "1"
    assert request.attributes["espalier.request_id"] == request_id
    assert (request.attributes["espalier.model"], request.attributes["espalier.rows"]) == ("late", 1)
    assert [run.attributes["espalier.segment"] for run in runs] == list(CHAINS["late"])
    for run in runs:
        assert run.parent.span_id == request.context.span_id
        assert f"{run.context.trace_id:032x}" == TRACE
        assert run.attributes["espalier.rows"] == 1
        assert request.start_time <= run.start_time <= request.end_time
        assert run.start_time <= run.end_time  # by a clock of another kind: who is held up between the two looks ends late
    assert runs[0].start_time <= runs[1].start_time


def test_an_rpc_is_a_span_too_and_without_a_parent_a_trace_begins(repository: Repository) -> None:
    for metadata, trace in (((("traceparent", TRACEPARENT),), TRACE), ((), None), ((("traceparent", "nonsense"),), None)):
        traced = Traced(repository)
        with traced.server as server, grpc.insecure_channel(server.grpc_address) as channel:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(grpc_request("late"), metadata=metadata)
        request, runs = traced.spans()
        assert (request.name, request.attributes["rpc.grpc.status"], len(runs)) == ("ModelInfer", "OK", 2)
        assert (f"{request.context.trace_id:032x}" == TRACE) == (trace is not None)
        assert (request.parent is None) == (trace is None)


def test_a_request_that_the_client_does_not_want_sampled_is_not(repository: Repository) -> None:
    traced = Traced(repository)
    with traced.server as server:
        ask(server, "POST", "/predict/late", PICTURE, traceparent=TRACEPARENT[:-1] + "0")
    traced._records.wait(1)
    assert traced._exporter.get_finished_spans() == ()


@pytest.mark.parametrize(("path", "failed"), [("/predict/late", True), ("/predict/cats", False)])
def test_our_failures_are_errors_in_the_trace_and_the_clients_are_not(repository: Repository, path: str, failed: bool) -> None:
    traced = Traced(repository, {**LAYERS, "branch-late": lambda rows: rows @ "x"})
    with traced.server as server:
        ask(server, "POST", path, PICTURE)
    request, _ = traced.spans()
    assert (request.status.status_code == StatusCode.ERROR) == failed


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4317"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_traces_are_wanted_exactly_when_the_standard_variables_say_so(environment: dict[str, str], wanted: bool) -> None:
    assert configured(environment) == wanted


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "serving.observe.traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)  # Python's way of saying: not installed
    with pytest.raises(ExtraNeeded, match=r"Traces need the package .*; run: pip install 'espalier\[otel\]'"):
        make_observation(environment={"OTEL_TRACES_EXPORTER": "otlp"})


_SERVE = """
import sys
from serving.server import BackgroundServer
from urllib.request import urlopen
with BackgroundServer({path!r}, http_port=0, grpc_port=0, threads=1) as server:
    urlopen(f"http://{{server.http_address}}/v2/health/ready").read()
print("sdk:", "opentelemetry.sdk" in sys.modules)
"""


@pytest.mark.slow
def test_opentelemetry_is_imported_and_works_only_when_it_is_turned_on(repository: Repository) -> None:
    def run(**environment: str) -> str:
        command = [sys.executable, "-W", "error", "-c", _SERVE.format(path=str(repository.path))]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    own = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    assert run(**own) == "sdk: False\n"
    traced = run(**own, OTEL_TRACES_EXPORTER="console", OTEL_RESOURCE_ATTRIBUTES="a=b")
    assert '"service.name": "espalier"' in traced
    assert '"name": "GET"' in traced
    assert "sdk: True" in traced
