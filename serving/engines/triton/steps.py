"""Runs a plan step by step, each step a request for a segment of its own, where no ensemble of Triton computes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import numpy as np

from contract.dtypes import Array
from contract.errors import EspalierError
from contract.plan import ExecutionPlan
from serving.engines.base import Answer, Call, SegmentRun
from serving.engines.scheduling.plan_execution import Flow, Work
from serving.errors import DeadlineExceeded, NotReady, QueueFull

RunSegment = Callable[[str, Sequence[Array], int], Awaitable[Sequence[Array]]]
# What ends a request as a whole, instead of one of its tasks.
OF_THE_REQUEST = (DeadlineExceeded, NotReady, QueueFull)


async def run_steps(plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call, run_segment: RunSegment) -> Answer:
    """Return what `plan` gives on `inputs`; what depends on a step that failed is among the answer's errors.

    run_segment(name, arrays of shape (n, ...), number of outputs) -> so many arrays of shape (n, ...). Steps that do not wait for each
    other run side by side. Raises what ends the request as a whole.
    """
    flow = Flow(plan, inputs, call, 0)
    running = _begun(flow.start(), run_segment)
    try:
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running |= _begun(_advance(flow, running.pop(task), task), run_segment)
    finally:
        for task in running:
            task.cancel()
    return flow.answer()


def _begun(ready: Iterable[Work], run_segment: RunSegment) -> dict[asyncio.Task[Sequence[Array]], Work]:
    return {asyncio.ensure_future(_run(work, run_segment)): work for work in ready}


async def _run(work: Work, run_segment: RunSegment) -> Sequence[Array]:
    """Run `work` as one request; as one for each stream where the plan is not divided, so that a stream has all rows that a model takes."""
    segment, outputs = work.step.segment, len(work.step.outputs[0])
    if not work.flow.plan.coupled or len(work.streams) == 1:
        return await run_segment(segment, work.inputs(), outputs)
    streams = [work.flow.stacked(work.step, [stream]) for stream in work.streams]
    parts = await asyncio.gather(*(run_segment(segment, arrays, outputs) for arrays in streams))
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _advance(flow: Flow, work: Work, task: asyncio.Task[Sequence[Array]]) -> list[Work]:
    try:
        return flow.finish(work, task.result(), SegmentRun(work.step.segment, work.rows, 0.0))
    except OF_THE_REQUEST:
        raise
    except EspalierError as error:
        return flow.fail(work, error)
