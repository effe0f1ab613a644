"""What happens in a server, and who wants to know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from serving.engines.base import SegmentRun


@dataclass(slots=True)
class RequestRecord:
    """One request on the wire, filled in while it is answered.

    protocol: "http" or "grpc". method: "POST /path" (the path as sent, percent-encoded) or the name of the RPC. id: the request's id.
    client: the peer's address. traceparent, tracestate: as sent (W3C Trace Context), "" without. model, rows: what was asked for, empty
    where the request did not get so far. status: the HTTP code or the name of the gRPC code. received_bytes, sent_bytes: sizes of
    bodies or messages. span: room for the tracer.
    """

    protocol: str
    method: str
    id: str
    client: str = ""
    traceparent: str = ""
    tracestate: str = ""
    model: str = ""
    rows: int = 0
    status: str = ""
    seconds: float = 0.0
    received_bytes: int = 0
    sent_bytes: int = 0
    span: Any = None


class Observer(Protocol):
    """Is told what happens. Its methods return at once and raise nothing; all may be called from any thread."""

    def request_started(self, record: RequestRecord) -> None:
        """Hear of a request before anything is done for it."""

    def request_done(self, record: RequestRecord) -> None:
        """Hear of the same request when it is answered, refused or given up; `record` is complete."""

    def plan_done(self, runs: Sequence[SegmentRun], steps_saved: int) -> None:
        """Hear of the runs of segments for one execution plan, and how many more its tasks would have taken one by one."""

    def deployed(self, task: str, seconds: float, ok: bool) -> None:
        """Hear that a task was deployed, or that it was tried and nothing changed."""

    def refused(self, limit: str) -> None:
        """Hear that something was refused because of the limit of this name, one of docs/limits.md."""


class NullObserver:
    """An observer that ignores everything; others override what they care for."""

    def request_started(self, record: RequestRecord) -> None:
        """Do nothing."""

    def request_done(self, record: RequestRecord) -> None:
        """Do nothing."""

    def plan_done(self, runs: Sequence[SegmentRun], steps_saved: int) -> None:
        """Do nothing."""

    def deployed(self, task: str, seconds: float, ok: bool) -> None:
        """Do nothing."""

    def refused(self, limit: str) -> None:
        """Do nothing."""


class Observers:
    """Passes everything on to several observers, in order."""

    def __init__(self, observers: Iterable[Observer]) -> None:
        self._observers = tuple(observers)

    def request_started(self, record: RequestRecord) -> None:
        """Tell all of them."""
        for observer in self._observers:
            observer.request_started(record)

    def request_done(self, record: RequestRecord) -> None:
        """Tell all of them."""
        for observer in self._observers:
            observer.request_done(record)

    def plan_done(self, runs: Sequence[SegmentRun], steps_saved: int) -> None:
        """Tell all of them."""
        for observer in self._observers:
            observer.plan_done(runs, steps_saved)

    def deployed(self, task: str, seconds: float, ok: bool) -> None:
        """Tell all of them."""
        for observer in self._observers:
            observer.deployed(task, seconds, ok)

    def refused(self, limit: str) -> None:
        """Tell all of them."""
        for observer in self._observers:
            observer.refused(limit)
