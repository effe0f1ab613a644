"""What happens in a server, who wants to know, and the request that is being answered, which is known wherever its coroutine goes."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
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


# A context variable has to be one per process; every request's task sees its own value.
_current: ContextVar[RequestRecord | None] = ContextVar("espalier_request", default=None)
_VALID_ID = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}", re.ASCII)


def current_request() -> RequestRecord | None:
    """Return the request that this task answers, None outside of any."""
    return _current.get()


def enter_request(record: RequestRecord) -> None:
    """Make `record` this task's request until the task ends: what is logged after the answer still bears its id."""
    _current.set(record)


def note_work(model: str, rows: int) -> None:
    """Write into the current request what it asks for; a stream's requests add up their rows."""
    record = _current.get()
    if record is not None:
        record.model = model
        record.rows += rows


def note_received(size: int) -> None:
    """Add the `size` of a message in bytes to the current request."""
    record = _current.get()
    if record is not None:
        record.received_bytes += size


def request_id(sent: str) -> str:
    """Return the id that a client `sent`, or a new one (16 hex digits) where it sent none or an unusable one.

    Usable are 1 to 128 characters of A-Z a-z 0-9 . _ : + / = @ -; others could forge log lines.
    """
    return sent if _VALID_ID.fullmatch(sent) else f"{random.getrandbits(64):016x}"  # to tell requests apart, no secret


class Observer(Protocol):
    """Is told what happens. Its methods return at once and raise nothing; all may be called from any thread."""

    def request_started(self, record: RequestRecord) -> None:
        """Hear of a request before anything is done for it."""

    def request_done(self, record: RequestRecord) -> None:
        """Hear of the same request when it is answered, refused or given up; `record` is complete."""

    def plan_done(self, runs: Sequence[SegmentRun], steps_saved: int) -> None:
        """Hear of the runs of segments for one execution plan, and how many more its tasks would have taken one by one."""

    def deployed(self, task: str, seconds: float, ok: bool, action: str = "load", version: str = "") -> None:
        """Hear that a task was deployed, or that it was tried and nothing changed.

        action: "load" or "unload". version: that is served now, or was, of a task that is unloaded; "": none.
        """

    def refused(self, limit: str) -> None:
        """Hear that something was refused because of the limit of this name, one of docs/reference/limits.md."""


class NullObserver:
    """An observer that ignores everything; others override what they care for."""

    def request_started(self, record: RequestRecord) -> None:
        """Do nothing."""

    def request_done(self, record: RequestRecord) -> None:
        """Do nothing."""

    def plan_done(self, runs: Sequence[SegmentRun], steps_saved: int) -> None:
        """Do nothing."""

    def deployed(self, task: str, seconds: float, ok: bool, action: str = "load", version: str = "") -> None:
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

    def deployed(self, task: str, seconds: float, ok: bool, action: str = "load", version: str = "") -> None:
        """Tell all of them."""
        for observer in self._observers:
            observer.deployed(task, seconds, ok, action, version)

    def refused(self, limit: str) -> None:
        """Tell all of them."""
        for observer in self._observers:
            observer.refused(limit)
