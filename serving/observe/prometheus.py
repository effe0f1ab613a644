"""The metrics of one server, for Prometheus. docs/reference/metrics.md has a row for each; a test keeps the two together.

Requests pay for counting only (serving/statistics.py, serving/engines/statistics.py): metrics are made when they are asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from contract.histogram import DurationCounter
from serving.catalog import Catalog
from serving.engines.base import SegmentRun, SegmentStatistics
from serving.features.cache import FeatureStatistics
from serving.observe.events import NullObserver, RequestRecord
from serving.observe.families import (
    duration_family,
    feature_families,
    model_families,
    queue_family,
    segment_families,
    triton_families,
)
from serving.statistics import ModelStatistics, ModelVersion

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsSource(Protocol):
    """What metrics ask of whoever answers requests, the router. Callable from any thread."""

    @property
    def catalog(self) -> Catalog:
        """Return the models that are served now."""

    @property
    def ready(self) -> bool:
        """Whether all requests are answered."""

    def all_statistics(self) -> Mapping[ModelVersion, ModelStatistics]:
        """Return the requests of every version of a model that was asked for."""

    def segment_statistics(self) -> Mapping[str, SegmentStatistics]:
        """Return what each segment has done."""

    def queued_rows(self) -> Mapping[str, int]:
        """Return the rows that wait, of each model that has any."""

    def loaded(self) -> Mapping[str, int]:
        """Return the bytes that each open segment takes."""

    def computed_by(self) -> Mapping[str, int]:
        """Return how many of the open segments are computed by what."""

    def unavailable(self) -> Collection[str]:
        """Return the segments that cannot be opened."""


class Metrics(NullObserver, Collector):
    """Counts what only observers hear of, and reads the rest from a server that it watches. Labels never hold what clients send."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lock = threading.Lock()
        self._responses: dict[tuple[str, str], int] = {}
        self._steps_saved = 0
        self._refused: dict[str, int] = {}
        self._deploys = {True: DurationCounter(), False: DurationCounter()}
        self._source: MetricsSource | None = None
        self._pending_bytes: Callable[[], int] = lambda: 0
        self._waiting_pixels: Callable[[], int] = lambda: 0
        self._features: Callable[[], FeatureStatistics] | None = None
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def watch(self, source: MetricsSource, pending_bytes: Callable[[], int] = lambda: 0) -> None:
        """Report the models and segments of `source` from now on. pending_bytes: of its requests that are not answered yet."""
        self._source = source
        self._pending_bytes = pending_bytes

    def watch_images(self, waiting_pixels: Callable[[], int]) -> None:
        """Report the pixels of images that wait to be decoded from now on."""
        self._waiting_pixels = waiting_pixels

    def watch_features(self, features: Callable[[], FeatureStatistics]) -> None:
        """Report a feature cache from now on."""
        self._features = features

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format. Takes up to some tenths of a second where there are thousands of tasks."""
        return render(self.registry.collect()).encode()

    def request_done(self, record: RequestRecord) -> None:
        """Count a response by protocol and status."""
        key = (record.protocol, record.status)
        with self._lock:
            self._responses[key] = self._responses.get(key, 0) + 1

    def plan_done(self, runs: Sequence[SegmentRun], steps_saved: int) -> None:
        """Count what sharing saved."""
        with self._lock:
            self._steps_saved += steps_saved

    def deployed(self, task: str, seconds: float, ok: bool, action: str = "load", version: str = "") -> None:
        """Count a deployment; which task it was, and why it failed, is in the log (serving/observe/deployments.py)."""
        with self._lock:
            self._deploys[ok].add(seconds)

    def refused(self, limit: str) -> None:
        """Count what a limit refused."""
        with self._lock:
            self._refused[limit] = self._refused.get(limit, 0) + 1

    def describe(self) -> Sequence[Metric]:
        """Return nothing: the registry need not collect in order to know the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as it is now."""
        if self._source is not None:
            models, runs = self._source.all_statistics(), self._source.segment_statistics()
            catalog = self._source.catalog.all_versions()
            yield from triton_families(catalog, models, runs)
            yield from model_families(catalog, models)
            yield queue_family(models, self._source.queued_rows())
            yield from segment_families(runs)
            loaded = self._source.loaded()
            yield GaugeMetricFamily("espalier_loaded_segments", "Segments in memory.", value=len(loaded))
            yield GaugeMetricFamily("espalier_loaded_segment_bytes", "Memory that they take.", value=sum(loaded.values()))
            computed = GaugeMetricFamily("espalier_engine_segments", "Segments in memory, by what computes.", labels=("engine",))
            for name, count in self._source.computed_by().items():
                computed.add_metric((name,), count)
            yield computed
            lost = len(self._source.unavailable())
            yield GaugeMetricFamily("espalier_unavailable_segments", "Segments that cannot be opened.", value=lost)
            yield GaugeMetricFamily("espalier_ready", "1 while requests are answered.", value=int(self._source.ready))
            yield GaugeMetricFamily("espalier_pending_bytes", "Of requests not answered yet.", value=self._pending_bytes())
            yield GaugeMetricFamily("espalier_waiting_pixels", "Of images not decoded yet.", value=self._waiting_pixels())
        if self._features is not None:
            yield from feature_families(self._features())
        with self._lock:
            families = list(self._own())
        yield from families

    def _own(self) -> Iterator[Metric]:
        responses = CounterMetricFamily("espalier_responses", "Answers on the wire.", labels=("protocol", "status"))
        for key, count in self._responses.items():
            responses.add_metric(key, count)
        yield responses
        refused = CounterMetricFamily("espalier_refused", "Refused because of a limit.", labels=("limit",))
        for limit, count in self._refused.items():
            refused.add_metric((limit,), count)
        yield refused
        yield CounterMetricFamily("espalier_steps_saved", "Segment runs that sharing saved.", value=self._steps_saved)
        deploys = [({"result": "ok" if ok else "failed"}, counter.snapshot()) for ok, counter in self._deploys.items()]
        yield duration_family("espalier_deploy_seconds", "Deployments.", deploys)


def render(families: Iterable[Metric]) -> str:
    """Return `families` (counters, gauges, histograms) in the text format 0.0.4, with line ends.

    The client library's own writer takes 14 microseconds a line and allows no counter without "_total".
    """
    return "".join(part for family in families for part in _family(family))


def _family(family: Metric) -> Iterable[str]:
    # Triton's counters do not end in _total.
    ending = "_total" if family.type == "counter" and not family.name.startswith("nv_") else ""
    text = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
    yield f"# HELP {family.name}{ending} {text}\n# TYPE {family.name}{ending} {family.type}\n"
    for sample in family.samples:
        labels = ",".join([f'{key}="{_escaped(value)}"' for key, value in sample.labels.items()])
        yield f"{sample.name}{{{labels}}} {sample.value}\n" if labels else f"{sample.name} {sample.value}\n"


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return value
