"""Carries out an execution plan step by step on any function that runs a segment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from serving.engines.base import Answer, Array, SegmentRun
from serving.plan import ExecutionPlan, PlanStep

RunSegment = Callable[[str, Array], Array]


def execute(plan: ExecutionPlan, rows: Array, run_segment: RunSegment) -> Answer:
    """Run `plan` on `rows` with `run_segment(name, array of shape (n, ...)) -> array of shape (n, ...)`.

    A tensor is dropped after its last use, so that memory holds the taps in use and no more.
    """
    tensors: dict[str, Array] = {plan.input: rows}
    uses = Counter(name for step in plan.steps for name in step.inputs)
    uses.update(plan.outputs.values())
    runs = []
    for step in plan.steps:
        runs.append(_run_step(step, tensors, run_segment))
        _drop_unused(step, tensors, uses)
    return Answer({task: tensors[name] for task, name in plan.outputs.items()}, tuple(runs))


def _run_step(step: PlanStep, tensors: dict[str, Array], run_segment: RunSegment) -> SegmentRun:
    streams = [tensors[name] for name in step.inputs]
    stacked = streams[0] if len(streams) == 1 else np.concatenate(streams)
    started = time.perf_counter()
    result = run_segment(step.segment, stacked)
    seconds = time.perf_counter() - started
    ends = np.cumsum([len(stream) for stream in streams])[:-1]
    tensors.update(zip(step.outputs, np.split(result, ends) if len(streams) > 1 else [result], strict=True))
    return SegmentRun(step.segment, len(stacked), seconds)


def _drop_unused(step: PlanStep, tensors: dict[str, Array], uses: Counter[str]) -> None:
    for name in step.inputs:
        uses[name] -= 1
        if not uses[name]:
            del tensors[name]
