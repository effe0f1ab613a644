"""What benchmarks/deploy/timeline.py has measured, and what a person wants to know of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnxruntime as ort

from benchmarks.harness.machine import describe_machine
from benchmarks.harness.open_loop import TimedRequest

Action = Literal["load", "unload", "ask"]


@dataclass(frozen=True)
class TimelineOptions:
    """task: that comes and goes. rate: requests per second of the others, 0: `share` of what the server can answer.

    pause_s: before and after each change.
    """

    task: str
    deploys: int = 200
    rate: float = 0.0
    share: float = 0.5
    connections: int = 8
    quiet_s: float = 30.0
    pause_s: float = 0.5
    threads: int | None = None
    cached: bool = True


@dataclass(frozen=True)
class TaskChange:
    """A load or unload; "ask": neither, only a request for the task, as there is one after each load.

    start_s: since the requests of the others began. seconds: until the server said that it was done. first_answer_s: from the call to
    the first answer of the task.
    """

    action: Action
    start_s: float
    seconds: float
    first_answer_s: float = 0.0


@dataclass(frozen=True)
class TimelineRound:
    """A stretch of time, in seconds since the requests of the others began, in which the task was asked once.

    deploys: whether it was unloaded and loaded before.
    """

    deploys: bool
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Timeline:
    """Everything that happened, in order. rate: requests per second that were sent."""

    options: TimelineOptions
    rate: float
    requests: tuple[TimedRequest, ...]
    changes: tuple[TaskChange, ...]
    rounds: tuple[TimelineRound, ...]

    @property
    def deploys(self) -> tuple[float, float]:
        """Return when the first change began and the last ended, in seconds."""
        last = self.changes[-1]
        return self.changes[0].start_s, last.start_s + max(last.seconds, last.first_answer_s)

    def quiet_ms(self) -> list[float]:
        """Return the latencies before and after the deploys."""
        begin, end = self.deploys
        return [request.latency_ms for request in self.requests if _end(request) < begin or request.due_s > end]

    def rounds_ms(self, deploys: bool) -> list[float]:
        """Return the latencies of requests that were due in rounds with a deploy, or in those without."""
        rounds = [found for found in self.rounds if found.deploys == deploys]
        return [
            request.latency_ms
            for request in self.requests
            if any(found.start_s <= request.due_s < found.end_s for found in rounds)
        ]

    def during_changes_ms(self) -> list[float]:
        """Return the latencies of requests that were under way together with a change."""
        changes = [change for change in self.changes if change.action != "ask"]
        starts = np.array([change.start_s for change in changes])
        ends = starts + np.array([change.seconds for change in changes])
        # Changes come one after the other: the last that began before the request ended is the only one to look at.
        places = [int(np.searchsorted(starts, _end(request), "right")) - 1 for request in self.requests]
        pairs = zip(self.requests, places, strict=True)
        return [request.latency_ms for request, place in pairs if place >= 0 and ends[place] >= request.due_s]

    @property
    def failed(self) -> int:
        """Return how many requests were not answered with 200."""
        return sum(request.status != 200 for request in self.requests)

    @property
    def changed(self) -> int:
        """Return how many answers were not what the task answers otherwise."""
        return sum(request.status == 200 and not request.right for request in self.requests)


def _end(request: TimedRequest) -> float:
    return request.due_s + request.latency_ms / 1000


def describe(timeline: Timeline) -> list[str]:
    """Return what a person wants to know of `timeline`, in lines."""
    quiet = timeline.quiet_ms()
    p99 = float(np.percentile(quiet, 99)) if quiet else float("nan")
    identical = sum(request.identical for request in timeline.requests)
    begin, end = timeline.deploys
    return [
        f"{len(timeline.requests):,} requests at {timeline.rate:.1f}/s beside {timeline.options.deploys} deploys of "
        f"{timeline.options.task} in {end - begin:.0f} s; {describe_machine()}, ONNX Runtime {ort.__version__}",
        f"failed {timeline.failed}, changed answers {timeline.changed}; the same to the bit {identical:,}",
        *(
            f"{name:16} {_percentiles(values)}" + (f"   p99 {np.percentile(values, 99) / p99:.2f} x quiet" if values else "")
            for name, values in (
                ("quiet", quiet),
                ("asked only", timeline.rounds_ms(deploys=False)),
                ("deploys", timeline.rounds_ms(deploys=True)),
                ("during a change", timeline.during_changes_ms()),
            )
        ),
        _ratio(timeline),
        f"{'load':16} {_percentiles(_milliseconds(timeline.changes, 'load'))}",
        f"{'to first answer':16} {_percentiles([1000 * c.first_answer_s for c in timeline.changes if c.action == 'load'])}",
        f"{'asked only':16} {_percentiles([1000 * c.first_answer_s for c in timeline.changes if c.action == 'ask'])}",
        f"{'unload':16} {_percentiles(_milliseconds(timeline.changes, 'unload'))}",
    ]


def _ratio(timeline: Timeline) -> str:
    """Return what a deploy itself adds: rounds with one and without take turns, so that the machine's drift meets both."""
    with_one, without = timeline.rounds_ms(deploys=True), timeline.rounds_ms(deploys=False)
    if not with_one or not without:
        return "deploys / asked only: none"
    ratios = [np.percentile(with_one, share) / np.percentile(without, share) for share in (50, 99)]
    return f"deploys / asked only: p50 {ratios[0]:.2f}, p99 {ratios[1]:.2f}"


def _milliseconds(changes: Iterable[TaskChange], action: Action) -> list[float]:
    return [1000 * change.seconds for change in changes if change.action == action]


def _percentiles(values: Sequence[float]) -> str:
    if not values:
        return "none"
    p50, p99 = np.percentile(values, [50, 99])
    return f"p50 {p50:8.2f} ms   p99 {p99:8.2f} ms   largest {max(values):8.2f} ms   n {len(values):,}"
