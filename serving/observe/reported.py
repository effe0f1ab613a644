"""What is said of a model in Triton's words. The protocol's statistics and the metrics both read it here, so that they agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.engines.base import BatchStatistics, SegmentStatistics
from serving.statistics import ModelStatistics


@dataclass(frozen=True)
class Reported:
    """Of a task: the requests that clients made. Of a segment: those of whatever task, and its runs.

    requests: that were answered; rows: theirs. executions: runs, of a task its requests. last_ms: since 1970; 0: never. Seconds are
    of the requests answered, added up: total_s from arrival to answer; of that queue_s waiting, and computing in input_s, infer_s and
    output_s, the first and the last 0 where infer_s has them. failures, failed_s, pending: of requests that named the model.
    batches: under the rows of a run, of segments alone.
    """

    requests: int
    rows: int
    executions: int
    last_ms: int
    total_s: float
    queue_s: float
    infer_s: float
    failures: int
    failed_s: float
    pending: int
    input_s: float = 0.0
    output_s: float = 0.0
    batches: Mapping[int, BatchStatistics] = field(default_factory=dict)


def reported(named: ModelStatistics, runs: SegmentStatistics | None) -> Reported:
    """Return what to say of a model that was asked for by name as `named` says. runs: what it did, if it is a segment."""
    failed_s = named.failure_ns / 1e9
    if runs is None:
        return Reported(
            requests=named.successes,
            rows=named.rows,
            executions=named.successes,
            last_ms=named.last_request_ms,
            total_s=named.success_ns / 1e9,
            queue_s=named.queue.total,
            infer_s=named.compute.total,
            failures=named.failures,
            failed_s=failed_s,
            pending=named.pending,
        )
    return Reported(
        requests=runs.queue.count,
        rows=runs.rows,
        executions=runs.runs,
        last_ms=runs.last_run_ms,
        total_s=runs.requests.total,
        queue_s=runs.queue.total,
        infer_s=runs.requests.infer,
        failures=named.failures,
        failed_s=failed_s,
        pending=named.pending,
        input_s=runs.requests.input,
        output_s=runs.requests.output,
        batches=runs.batches,
    )
