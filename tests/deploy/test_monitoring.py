"""Dashboard, rules and probes ask for what a real server answers."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import contract.errors
import serving.errors
from serving.engines.in_memory import InMemoryEngine
from serving.server import BackgroundServer
from tests.deploy.manifests import DEPLOY, container_of, kserve, load, of_kind, rendered
from tests.serving.nets import LAYERS, images, make_repository

pytestmark = pytest.mark.slow

RULES = [rule for group in load("chart/files/rules.yaml")["groups"] for rule in group["rules"]]
PANELS = json.loads((DEPLOY / "chart/files/dashboard.json").read_text())["panels"]
QUERIES = [rule["expr"] for rule in RULES] + [target["expr"] for panel in PANELS for target in panel.get("targets", [])]
# Prometheus' own, of each target.
TARGET_LABELS = {"namespace", "pod", "job", "instance"}


def ask(server: BackgroundServer, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
    with closing(http.client.HTTPConnection(server.http_address, timeout=20)) as connection:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read().decode()


@pytest.fixture(scope="module")
def server() -> Iterator[BackgroundServer]:
    with BackgroundServer(make_repository(), InMemoryEngine(LAYERS), http_port=0, grpc_port=0) as running:
        yield running


@pytest.fixture(scope="module")
def samples(server: BackgroundServer) -> dict[str, set[str]]:
    """The labels of each sample's name in /metrics, after a request that is answered and one that fails."""
    image = {"name": "image", "shape": [1, 8, 8, 3], "datatype": "UINT8", "data": images(1).ravel().tolist()}
    for inputs, status in (([image], 200), ([], 400)):
        assert ask(server, "POST", "/v2/models/late/infer", json.dumps({"inputs": inputs}).encode())[0] == status
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", ask(server, "GET", "/metrics")[1], re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def test_every_metric_is_one_of_a_real_server(samples: dict[str, set[str]]) -> None:
    asked = {name for query in QUERIES for name in re.findall(r"(?<![\w:])(?:espalier|nv|process)_\w+", query)}
    assert len(asked) > 20
    assert asked - samples.keys() == set()


def test_every_label_is_one_of_the_metrics(samples: dict[str, set[str]]) -> None:
    known = set().union(*samples.values()) | TARGET_LABELS
    for query in QUERIES:
        groups = [name.strip() for part in re.findall(r"\b(?:by|on) \((.*?)\)", query) for name in part.split(",")]
        matched = re.findall(r'[{,](\w+)=~?"', query)
        assert set(groups) | set(matched) <= known, query


def test_recorded_series_are_recorded() -> None:
    records = {rule["record"] for rule in RULES if "record" in rule}
    assert {name for query in QUERIES for name in re.findall(r"\w+:\w+:\w+", query)} <= records


def test_reasons_are_errors_that_there_are() -> None:
    reasons = {word for query in QUERIES for text in re.findall(r'reason=~?"([\w|]+)"', query) for word in text.split("|")}
    assert reasons
    for reason in reasons - {"Internal"}:
        assert issubclass(
            getattr(serving.errors, reason, None) or getattr(contract.errors, reason), contract.errors.EspalierError
        )


def test_an_alert_says_how_bad_it_is_and_what_it_means() -> None:
    alerts = [rule for rule in RULES if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"].endswith((".", "?"))
    tested = re.findall(r'alertname="(\w+)"', (DEPLOY / "monitoring/rules_test.yaml").read_text())
    assert set(tested) == {rule["alert"] for rule in alerts}


def test_the_server_answers_every_probe(server: BackgroundServer) -> None:
    containers = [container_of(of_kind(rendered("embedded"), "Deployment")["espalier"]), kserve()[0]]
    paths = {one[probe]["httpGet"]["path"] for one in containers for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    paths |= set(re.findall(r"http://127\.0\.0\.1:8000(/[\w/]+)", (DEPLOY / "Dockerfile").read_text()))
    assert paths == {"/v2/health/live", "/v2/health/ready"}
    for path in paths:
        assert ask(server, "GET", path)[0] == 200


def test_compose_mounts_what_there_is_and_prometheus_asks_services_that_there_are() -> None:
    services = load("compose.yaml")["services"]
    for service in services.values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (DEPLOY / Path(volume.split(":")[0])).is_file()
    for scrape in load("monitoring/prometheus.yml")["scrape_configs"]:
        for target in scrape["static_configs"][0]["targets"]:
            name, port = target.split(":")
            assert name in services
            assert port == ("8002" if name == "triton" else "8000")


def test_panels_do_not_overlap() -> None:
    cells = [
        (x, y)
        for panel in PANELS
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
