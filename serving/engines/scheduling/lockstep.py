"""Runs requests with the same plan in one batch from its first step to its last: what most turns of the event loop bring.

Nothing is kept of how far each request is. It does nothing that PlanExecution could not, at a third of what that costs beside the runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from contract.dtypes import Array
from contract.plan import ExecutionPlan, PlanStep
from serving.engines.base import Answer, SegmentRun
from serving.engines.device_tensors import is_on_device, stack
from serving.engines.scheduling.batches import BatchRunner, SegmentTimes
from serving.engines.scheduling.plan_execution import PlanExecution
from serving.errors import SegmentClosed


class Lockstep:
    """Runs plans on `runner`; `times` learn from it."""

    def __init__(self, runner: BatchRunner, times: SegmentTimes) -> None:
        self._runner = runner
        self._times = times

    def answers(self, executions: Sequence[PlanExecution], queued_s: Sequence[float]) -> Sequence[Answer] | None:
        """Return the answers to `executions` that have not begun; None where they cannot go together, or a run fails.

        Then nothing has been counted, and they have not begun. A segment that is closed is the error of every output. queued_s: how long
        each of them has waited.
        """
        plan = executions[0].plan
        if not plan.is_simple or any(execution.plan is not plan for execution in executions):
            return None
        rows = sum([execution.rows for execution in executions])
        if not all(self._runner.limit(step.segment) >= rows for step in plan.steps):
            return None
        tensors = {name: _stacked([execution.given(name) for execution in executions]) for name in plan.inputs}
        try:
            runs = self._run(plan, tensors, rows)
        except SegmentClosed as error:  # which all of them need
            return [Answer({}, (), dict.fromkeys(plan.outputs, error)) for _ in executions]
        except (
            BaseException
        ):  # as in a worker; which request is to blame, and what can be saved of the others, is found out step by step
            return None
        for run in runs:
            self._runner.count(run, [run.queue_seconds] * len(executions))
            self._times.note(run.segment, rows, run.seconds)
        outputs = {output: tensors[name] for output, name in plan.outputs.items()}
        if len(executions) == 1:
            return [Answer(outputs, tuple(runs), {}, queued_s[0])]
        return [*_shared_out(executions, outputs, runs, queued_s)]

    def _run(self, plan: ExecutionPlan, tensors: dict[str, Array], rows: int) -> list[SegmentRun]:
        """Add what the steps give to `tensors`. Raises what runs raise."""
        runs = []
        ready_s = dict.fromkeys(tensors, time.perf_counter())
        for step in plan.steps:
            inputs = step.inputs[0]
            started_s, started_ns = time.perf_counter(), time.time_ns()
            results = self._runner.run_rows(step.segment, [tensors[name] for name in inputs], rows, len(step.outputs[0]))
            if is_on_device(results[0]):
                results = _brought_home(step, plan, results)
            ended_s = time.perf_counter()
            wait_s = started_s - max([ready_s[name] for name in inputs])
            runs.append(SegmentRun(step.segment, rows, ended_s - started_s, rows, wait_s, started_ns))
            for name, result in zip(step.outputs[0], results, strict=True):
                tensors[name], ready_s[name] = result, ended_s
        return runs


def _stacked(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else stack(parts)


def _brought_home(step: PlanStep, plan: ExecutionPlan, results: Sequence[Array]) -> Sequence[Array]:
    """Return `results`, on the host where they leave the engine."""
    leaving = set(plan.outputs.values())
    return [np.asarray(result) if name in leaving else result for name, result in zip(step.outputs[0], results, strict=True)]


def _shared_out(
    executions: Sequence[PlanExecution], outputs: Mapping[str, Array], runs: Sequence[SegmentRun], queued_s: Sequence[float]
) -> Iterator[Answer]:
    """Yield to each of `executions` its rows."""
    start = 0
    for execution, waited_s in zip(executions, queued_s, strict=True):
        rows = slice(start, start := start + execution.rows)
        own = tuple([run._replace(rows=execution.rows) for run in runs])
        yield Answer({output: values[rows] for output, values in outputs.items()}, own, {}, waited_s)
