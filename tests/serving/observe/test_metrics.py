"""GET /metrics: the numbers, the names, and what must not be in it."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
import tritonclient.http
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from contract.repository import Repository
from contract.repository.config import ALL_TASKS
from serving.engines.in_memory import InMemoryEngine
from serving.observe.prometheus import CONTENT_TYPE, Metrics, render
from serving.router import Router
from serving.server import BackgroundServer
from tests.serving.nets import CHAINS, IMAGE, LAYERS, images, make_repository

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

DOCS = Path(__file__).parents[3] / "docs/reference/metrics.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def own(repository: Repository) -> Iterator[BackgroundServer]:
    """A server that nobody else has asked, with all that there are metrics of."""
    with BackgroundServer(repository, InMemoryEngine(LAYERS), http_port=0, grpc_port=0, feature_cache_bytes=1 << 20) as running:
        yield running


def text(server: BackgroundServer) -> str:
    with closing(http.client.HTTPConnection(server.http_address, timeout=20)) as connection:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        assert (response.status, response.headers["content-type"]) == (200, CONTENT_TYPE)
        return response.read().decode()


def samples(source: str) -> Samples:
    """The parser adds the _total that Triton's names do not have."""
    found = [one for family in text_string_to_metric_families(source) for one in family.samples]
    names = [one.name.removesuffix("_total") if one.name.startswith("nv_") else one.name for one in found]
    return {(name, frozenset(one.labels.items())): one.value for name, one in zip(names, found, strict=True)}


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def infer(server: BackgroundServer, model: str, rows: int, outputs: tuple[str, ...] = (), shape: Any = IMAGE.shape) -> None:
    with tritonclient.http.InferenceServerClient(server.http_address) as client:
        tensor = tritonclient.http.InferInput("image", [rows, *shape], "UINT8")
        tensor.set_data_from_numpy(images(rows).reshape(rows, *shape))
        client.infer(model, [tensor], outputs=[tritonclient.http.InferRequestedOutput(name) for name in outputs] or None)


def test_requests_rows_runs_and_savings_are_counted(own: BackgroundServer) -> None:
    infer(own, "late", 2)
    infer(own, "late", 5)
    infer(own, ALL_TASKS, 1, ("late", "probe"))
    found = samples(text(own))
    late, trunk = {"model": "late", "version": "1"}, {"model": "trunk", "version": "1"}
    assert value(found, "nv_inference_request_success", **late) == 2
    assert value(found, "nv_inference_count", **late) == 7
    assert value(found, "nv_inference_exec_count", **trunk) == 3
    assert value(found, "nv_inference_count", **trunk) == 8
    assert value(found, "nv_inference_request_success", model="probe", version="1") == 0
    assert value(found, "nv_inference_pending_request_count", **late) == 0
    assert value(found, "espalier_steps_saved_total") == len(CHAINS["late"]) + len(CHAINS["probe"]) - 5
    assert value(found, "espalier_segment_batch_rows_bucket", segment="trunk", le="2") == 2
    assert value(found, "espalier_segment_batch_rows_bucket", segment="trunk", le="8") == 3
    assert value(found, "espalier_segment_batch_rows_sum", segment="trunk") == 8
    assert value(found, "espalier_segment_compute_seconds_count", segment="trunk") == 3
    assert value(found, "espalier_request_duration_seconds_count", **late) == 2
    duration, compute = (value(found, f"espalier_request_{what}_seconds_sum", **late) for what in ("duration", "compute"))
    assert duration > compute > 0
    assert value(found, "nv_inference_request_duration_us", **late) == pytest.approx(duration * 1e6, abs=1)
    assert value(found, "nv_inference_compute_infer_duration_us", **late) == pytest.approx(compute * 1e6, abs=1)
    assert value(found, "espalier_responses_total", protocol="http", status="200") == 3
    assert value(found, "espalier_ready") == 1
    assert value(found, "espalier_loaded_segments") == len(LAYERS)
    assert value(found, "espalier_engine_segments", engine="functions") == len(LAYERS)


def test_failures_have_reasons_and_no_label_is_the_clients(repository: Repository) -> None:
    engine = InMemoryEngine({**LAYERS, "branch-late": lambda rows: rows @ "x"})
    with BackgroundServer(repository, engine, http_port=0, grpc_port=0) as server:
        for model, shape in (("late", IMAGE.shape), ("probe", (64, 3)), ("evil-name", IMAGE.shape)):
            with pytest.raises(InferenceServerException):
                infer(server, model, 1, shape=shape)
        with tritonclient.grpc.InferenceServerClient(server.grpc_address) as client, pytest.raises(InferenceServerException):
            client.get_model_metadata("evil-name")
        source = text(server)
        until = time.monotonic() + 10
        while 'status="NOT_FOUND"' not in source and time.monotonic() < until:  # counted when the client has its answer already
            source = text(server)
    found = samples(source)
    assert value(found, "nv_inference_request_failure", model="late", version="1", reason="BACKEND") == 1
    assert value(found, "nv_inference_request_failure", model="probe", version="1", reason="OTHER") == 1
    assert value(found, "espalier_request_failures_total", model="probe", version="1", reason="InvalidRequest") == 1
    assert value(found, "espalier_request_failures_total", model="late", version="1", reason="TaskFailed") == 1
    assert value(found, "espalier_responses_total", protocol="http", status="404") == 1
    assert value(found, "espalier_responses_total", protocol="grpc", status="NOT_FOUND") == 1
    assert "evil" not in source


def test_tritons_counters_are_typed_and_named_as_tritons(own: BackgroundServer) -> None:
    source = text(own)
    assert "# TYPE nv_inference_request_success counter\n" in source
    assert "# TYPE nv_inference_pending_request_count gauge\n" in source
    assert not re.search(r"nv_\w+_total", source)


def test_every_metric_is_in_the_documentation_and_the_other_way_round(own: BackgroundServer) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*)\|", DOCS.read_text(), re.MULTILINE)
    infer(own, "late", 1)
    with pytest.raises(InferenceServerException):
        infer(own, "late", 1, ("cats",))
    with pytest.raises(InferenceServerException):
        infer(own, "late", 1, tuple(map(str, range(100))))  # beyond a limit
    source = text(own)
    assert {(name, kind) for name, kind, _ in rows} == set(re.findall(r"^# TYPE (\w+) (\w+)$", source, re.MULTILINE))
    labels: dict[str, set[str]] = {}
    for name, found in samples(source):
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        documented = name if name in {row[0] for row in rows} else base
        labels.setdefault(documented, set()).update(label for label, _ in found if label != "le")
    assert labels == {name: {label.strip() for label in listed.split(",") if label.strip()} for name, _, listed in rows}


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False)), max_size=5, unique_by=lambda item: item[0]))
def test_the_text_reads_back_as_what_it_was_made_from(values: list[tuple[str, float]]) -> None:
    family = GaugeMetricFamily("espalier_x", "A text with \\ and\nlines.", labels=("model",))
    for label, number in values:
        family.add_metric((label,), number)
    (found,) = text_string_to_metric_families(render([family]))
    assert (found.documentation, found.type) == (family.documentation, "gauge")
    assert [(sample.labels["model"], sample.value) for sample in found.samples] == values


def test_two_servers_do_not_share_their_numbers(own: BackgroundServer, repository: Repository) -> None:
    infer(own, "late", 1)
    with BackgroundServer(repository, InMemoryEngine(LAYERS), http_port=0, grpc_port=0) as other:
        name = {"model": "late", "version": "1"}
        assert value(samples(text(own)), "nv_inference_request_success", **name) == 1
        assert value(samples(text(other)), "nv_inference_request_success", **name) == 0


def test_deployments_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()
    metrics.deployed("late", 0.03, ok=True)
    metrics.deployed("late", 0.3, ok=True)
    metrics.deployed("late", 7.0, ok=False)
    found = samples(metrics.text().decode())
    assert value(found, "espalier_deploy_seconds_count", result="ok") == 2
    assert value(found, "espalier_deploy_seconds_bucket", result="ok", le="0.05") == 1
    assert value(found, "espalier_deploy_seconds_sum", result="failed") == 7


def test_before_it_is_started_a_router_is_not_ready() -> None:
    metrics = Metrics()
    metrics.watch(Router(make_repository(), InMemoryEngine(LAYERS)))
    assert value(samples(metrics.text().decode()), "espalier_ready") == 0
