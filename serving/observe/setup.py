"""Puts a server's observers together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contract.errors import ExtraNeeded
from serving.observe.events import Observer, Observers
from serving.observe.logs import AccessLog
from serving.observe.prometheus import Metrics
from serving.process.threads import to_thread

if TYPE_CHECKING:
    from serving.observe.traces import Traces


@dataclass(frozen=True)
class Observation:
    """What watches one server: `observer` hears everything and passes it on, `metrics` can be asked."""

    metrics: Metrics
    observer: Observer
    traces: Traces | None

    async def aclose(self) -> None:
        """Send the traces that are left, without holding up the event loop."""
        if self.traces is not None:
            await to_thread(self.traces.close)


def make_observation(
    *, access_log: bool = False, others: Sequence[Observer] = (), environment: Mapping[str, str] = os.environ
) -> Observation:
    """Return metrics, an access log where it is wanted, traces where `environment` asks for them, and `others`.

    Raises ExtraNeeded when traces are asked for and OpenTelemetry is not installed.
    """
    metrics = Metrics()
    traces = _traces(environment) if configured(environment) else None
    logs = (AccessLog(),) if access_log else ()
    return Observation(metrics, Observers([metrics, *logs, *([traces] if traces else []), *others]), traces)


def configured(environment: Mapping[str, str]) -> bool:
    """Tell whether OpenTelemetry's standard variables ask for traces: an exporter or an endpoint is named, and nothing is off."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return exporter != "none" and bool(exporter or any(environment.get(name) for name in endpoints))


def _traces(environment: Mapping[str, str]) -> Traces:
    try:
        from serving.observe.traces import make_traces

        return make_traces(environment)
    except ModuleNotFoundError as error:
        raise ExtraNeeded("Traces", error.name or "opentelemetry", "otel") from error
