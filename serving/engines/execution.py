"""Carries out an execution plan step by step on any function that runs a segment."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from serving.engines.base import Answer, Array, SegmentRun
from serving.plan import ExecutionPlan, PlanStep

RunSegment = Callable[[str, Sequence[Array]], Sequence[Array]]


def execute(plan: ExecutionPlan, inputs: Mapping[str, Array], run_segment: RunSegment) -> Answer:
    """Run `plan` on `inputs` with `run_segment(name, arrays of shape (n, ...)) -> arrays of shape (n, ...)`.

    A tensor is dropped after its last use, so that memory holds the taps in use and no more.
    """
    tensors = {name: inputs[name] for name in plan.inputs}
    uses = Counter(name for step in plan.steps for stream in step.inputs for name in stream)
    uses.update(plan.outputs.values())
    runs = []
    for step in plan.steps:
        runs.append(_run_step(step, tensors, run_segment))
        _drop_unused(step, tensors, uses)
    return Answer({output: tensors[name] for output, name in plan.outputs.items()}, tuple(runs))


def _run_step(step: PlanStep, tensors: dict[str, Array], run_segment: RunSegment) -> SegmentRun:
    streams = [[tensors[name] for name in names] for names in step.inputs]
    stacked = streams[0] if len(streams) == 1 else [np.concatenate(arrays) for arrays in zip(*streams, strict=True)]
    started = time.perf_counter()
    results = run_segment(step.segment, stacked)
    seconds = time.perf_counter() - started
    ends = np.cumsum([len(stream[0]) for stream in streams])[:-1]
    for index, result in enumerate(results):
        parts = np.split(result, ends) if len(streams) > 1 else [result]
        tensors.update({names[index]: part for names, part in zip(step.outputs, parts, strict=True)})
    return SegmentRun(step.segment, len(stacked[0]), seconds)


def _drop_unused(step: PlanStep, tensors: dict[str, Array], uses: Counter[str]) -> None:
    for names in step.inputs:
        for name in names:
            uses[name] -= 1
            if not uses[name]:
                del tensors[name]
