"""OpenTelemetry traces: a span per request, and one for each segment run in it. Needs the extra: pip install 'espalier[otel]'.

The only module that imports opentelemetry; it is imported only where the environment asks for traces (`configured`, in setup.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from serving.engines.base import SegmentRun
from serving.observe.events import NullObserver, RequestRecord, current_request

_GRPC_FAILURES = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")


class Traces(NullObserver):
    """Gives spans to `provider`, which `close` shuts down. A request's span continues the trace of its traceparent header."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("espalier")
        self._propagator = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send what is left. May wait for the network."""
        self._provider.shutdown()

    def request_started(self, record: RequestRecord) -> None:
        """Open the request's span."""
        # A name of few values, as OpenTelemetry wants it: of HTTP the method without the path.
        record.span = self._tracer.start_span(
            record.method.partition(" ")[0],
            self._propagator.extract({"traceparent": record.traceparent, "tracestate": record.tracestate}),
            trace.SpanKind.SERVER,
        )

    def request_done(self, record: RequestRecord) -> None:
        """Close it with what is known by now."""
        span = record.span
        if span is None:
            return
        if span.is_recording():
            span.set_attributes(_attributes(record))
            if record.status in _GRPC_FAILURES or record.status.startswith("5"):
                span.set_status(trace.StatusCode.ERROR)
        span.end()

    def plan_done(self, runs: Sequence[SegmentRun], steps_saved: int) -> None:
        """Add a span for each run, inside the span of the request that is being answered."""
        record = current_request()
        if record is None or record.span is None or not record.span.is_recording():
            return
        parent = trace.set_span_in_context(record.span)
        for run in runs:
            duration_ns = round(run.seconds * 1e9)
            start_ns = run.started_ns or time.time_ns() - duration_ns
            attributes: dict[str, str | float] = {
                "espalier.segment": run.segment,
                "espalier.rows": run.rows,
                "espalier.queue_ms": run.queue_seconds * 1e3,
            }
            span = self._tracer.start_span(f"run {run.segment}", parent, attributes=attributes, start_time=start_ns)
            span.end(start_ns + duration_ns)


def make_traces(environment: Mapping[str, str]) -> Traces:
    """Return traces that go where the OTEL_* variables say: OTLP over gRPC or HTTP, or the console. The sampler is theirs, too."""
    named = "OTEL_SERVICE_NAME" in environment or SERVICE_NAME in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {SERVICE_NAME: "espalier"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter(environment)))
    return Traces(provider)


def _exporter(environment: Mapping[str, str]) -> SpanExporter:
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") == "console":
        return ConsoleSpanExporter()
    general = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    if environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general) == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

    return HttpExporter()


def _attributes(record: RequestRecord) -> dict[str, str | int]:
    code = {"http.response.status_code": int(record.status)} if record.protocol == "http" else {"rpc.grpc.status": record.status}
    return {
        **code,
        "espalier.request_id": record.id,
        "espalier.method": record.method,
        "espalier.model": record.model,
        "espalier.rows": record.rows,
        "client.address": record.client,
    }
