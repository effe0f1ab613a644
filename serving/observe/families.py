"""The metrics of models and segments, made from their statistics: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from contract.histogram import DURATION_BOUNDS_S, Histogram
from serving.catalog import Model
from serving.engines.base import SegmentStatistics
from serving.features.cache import FeatureStatistics
from serving.observe.reported import Reported, reported
from serving.statistics import ModelStatistics, ModelVersion

_Bucket = tuple[str, float]
_Labels = dict[str, str]
_ROW_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Triton's words for why requests fail; what is not here is OTHER.
_TRITON_REASONS = {
    **dict.fromkeys(("QueueFull", "TritonBusy", "DeadlineExceeded"), "REJECTED"),
    "Cancelled": "CANCELED",
    "TaskFailed": "BACKEND",
}


_TRITON: tuple[tuple[str, str, str, Callable[[Reported], float]], ...] = (
    ("nv_inference_request_success", "counter", "Requests answered.", lambda done: done.requests),
    ("nv_inference_count", "counter", "Rows.", lambda done: done.rows),
    ("nv_inference_exec_count", "counter", "Executions.", lambda done: done.executions),
    ("nv_inference_request_duration_us", "counter", "Time of requests.", lambda done: round(done.total_s * 1e6)),
    ("nv_inference_queue_duration_us", "counter", "Time in queues.", lambda done: round(done.queue_s * 1e6)),
    ("nv_inference_compute_input_duration_us", "counter", "Time before computing.", lambda done: round(done.input_s * 1e6)),
    ("nv_inference_compute_infer_duration_us", "counter", "Time of computing.", lambda done: round(done.infer_s * 1e6)),
    ("nv_inference_compute_output_duration_us", "counter", "Time after computing.", lambda done: round(done.output_s * 1e6)),
    ("nv_inference_pending_request_count", "gauge", "Requests being answered.", lambda done: done.pending),
)


def triton_families(
    catalog: Collection[Model], models: Mapping[ModelVersion, ModelStatistics], runs: Mapping[str, SegmentStatistics]
) -> Iterator[Metric]:
    """Yield Triton's metrics, a sample for every model of `catalog`, zeros included."""
    never = ModelStatistics()
    table = [
        (
            {"model": model.name, "version": model.version},
            reported(models.get((model.name, model.version), never), runs.get(model.segment)),
        )
        for model in catalog
    ]
    for name, kind, text, value in _TRITON:
        family = Metric(name, text, kind)
        for labels, done in table:
            family.add_sample(name, labels, value(done))
        yield family
    failures = Metric("nv_inference_request_failure", "Requests that failed.", "counter")
    for model in catalog:
        for reason, count in _triton_failures(models.get((model.name, model.version), never)).items():
            labels = {"model": model.name, "version": model.version, "reason": reason}
            failures.add_sample("nv_inference_request_failure", labels, count)
    yield failures


def model_families(catalog: Collection[Model], models: Mapping[ModelVersion, ModelStatistics]) -> Iterator[Metric]:
    """Yield our metrics of the models that have been asked for."""
    asked = [(model, done) for model in catalog if (done := models.get((model.name, model.version))) is not None]
    labels = ("model", "version")
    failures = CounterMetricFamily("espalier_request_failures", "Requests that failed.", labels=(*labels, "reason"))
    for model, done in asked:
        for reason, count in done.failures_by_reason.items():
            failures.add_metric((model.name, model.version, reason), count)
    yield failures
    for what, text in (("duration", "Time of requests."), ("queue", "Their time in queues."), ("compute", "Their computing.")):
        histograms = [({"model": model.name, "version": model.version}, getattr(done, what)) for model, done in asked]
        yield duration_family(f"espalier_request_{what}_seconds", text, histograms)


def queue_family(models: Iterable[ModelVersion], queued: Mapping[str, int]) -> Metric:
    """Return the rows that wait, of the models that have been asked for or have any."""
    family = GaugeMetricFamily("espalier_queued_rows", "Rows that wait.", labels=("model",))
    for model in dict.fromkeys([*(name for name, _ in models), *queued]):
        family.add_metric((model,), queued.get(model, 0))
    return family


def segment_families(runs: Mapping[str, SegmentStatistics]) -> Iterator[Metric]:
    """Yield our metrics of the segments that have run."""
    ran = {name: done for name, done in runs.items() if done.runs}
    for what, text in (("queue", "Waits of requests for a run."), ("compute", "Time of runs.")):
        histograms = [({"segment": name}, getattr(done, what)) for name, done in ran.items()]
        yield duration_family(f"espalier_segment_{what}_seconds", text, histograms)
    rows = Metric("espalier_segment_batch_rows", "Rows per run.", "histogram")
    for name, done in ran.items():
        _add(rows, {"segment": name}, _row_buckets(done), done.rows)
    yield rows


def feature_families(done: FeatureStatistics) -> Iterator[Metric]:
    """Yield the metrics of a feature cache."""
    requests = CounterMetricFamily("espalier_feature_cache_requests", "Requests that share features.", labels=("result",))
    for result, count in (("hit", done.hits), ("wait", done.waits), ("miss", done.misses)):
        requests.add_metric((result,), count)
    yield requests
    yield CounterMetricFamily("espalier_feature_cache_evictions", "Tensors that made room.", value=done.evictions)
    yield GaugeMetricFamily("espalier_feature_cache_tensors", "Tensors kept.", value=done.tensors)
    yield GaugeMetricFamily("espalier_feature_cache_bytes", "Memory that they take.", value=done.bytes)


def duration_family(name: str, text: str, histograms: Iterable[tuple[_Labels, Histogram]]) -> Metric:
    """Return the metric `name` with one histogram for each set of labels."""
    family = Metric(name, text, "histogram")
    for labels, histogram in histograms:
        _add(family, labels, cumulative(histogram), histogram.total)
    return family


def _add(family: Metric, labels: _Labels, buckets: list[_Bucket], total: float) -> None:
    # The client library's own way of adding a histogram takes four times as long.
    for bound, count in buckets:
        family.add_sample(f"{family.name}_bucket", {**labels, "le": bound}, count)
    family.add_sample(f"{family.name}_count", labels, buckets[-1][1])
    family.add_sample(f"{family.name}_sum", labels, total)


def cumulative(histogram: Histogram) -> list[_Bucket]:
    """Return the buckets of `histogram` as Prometheus wants them: each with all that is below it."""
    bounds = (*map(str, DURATION_BOUNDS_S), "+Inf")
    return list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))


def _row_buckets(done: SegmentStatistics) -> list[_Bucket]:
    below = [(bound, sum(batch.runs for rows, batch in done.batches.items() if rows <= bound)) for bound in _ROW_BOUNDS]
    return [*((str(bound), float(count)) for bound, count in below), ("+Inf", float(done.runs))]


def _triton_failures(requests: ModelStatistics) -> Mapping[str, int]:
    counts = dict.fromkeys(("REJECTED", "CANCELED", "BACKEND", "OTHER"), 0)
    for reason, count in requests.failures_by_reason.items():
        counts[_TRITON_REASONS.get(reason, "OTHER")] += count
    return counts
