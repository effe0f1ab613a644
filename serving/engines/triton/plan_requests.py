"""A plan as several requests to a Triton: its rows in chunks, and, where no ensemble computes it, a request for each of its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import numpy as np

from contract.dtypes import Array
from contract.errors import EspalierError
from contract.plan import ExecutionPlan
from serving.engines.base import Answer, Call, SegmentRun
from serving.engines.scheduling.plan_execution import PlanExecution, ReadyStep, join_chunks, split_rows
from serving.errors import DeadlineExceeded, NotReady, QueueFull

_RunSegment = Callable[[str, Sequence[Array], int], Awaitable[Sequence[Array]]]
# What ends a request as a whole, instead of one of its tasks.
OF_THE_REQUEST = (DeadlineExceeded, NotReady, QueueFull)


async def ask_in_chunks(
    plan: ExecutionPlan, inputs: Mapping[str, Array], limit: int, ask: Callable[[Mapping[str, Array]], Awaitable[Answer]]
) -> Answer:
    """Return what `ask` answers on `inputs`, arrays of shape (n, ...), given at most `limit` rows at a time (0: any number).

    Raises TooManyRows for a plan that must not be divided.
    """
    chunks = split_rows(plan, inputs, limit)
    if len(chunks) == 1:
        return await ask(inputs)
    asked = [asyncio.ensure_future(ask(chunk)) for chunk in chunks]
    try:
        return join_chunks(plan, await asyncio.gather(*asked))
    finally:
        for one in asked:  # when one has failed, or nobody waits any more
            one.cancel()


async def run_steps(plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call, run_segment: _RunSegment) -> Answer:
    """Return what `plan` gives on `inputs`; what depends on a step that failed is among the answer's errors.

    run_segment(name, arrays of shape (n, ...), number of outputs) -> so many arrays of shape (n, ...). Steps that do not wait for each
    other run side by side. Raises what ends the request as a whole.
    """
    execution = PlanExecution(plan, inputs, call, 0)
    running = _begun(execution.start(), run_segment)
    try:
        while running:
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running |= _begun(_advance(execution, running.pop(task), task), run_segment)
    finally:
        for task in running:
            task.cancel()
    return execution.answer()


def _begun(ready: Iterable[ReadyStep], run_segment: _RunSegment) -> dict[asyncio.Task[Sequence[Array]], ReadyStep]:
    return {asyncio.ensure_future(_run(step, run_segment)): step for step in ready}


async def _run(step: ReadyStep, run_segment: _RunSegment) -> Sequence[Array]:
    """Run `step` as one request; as one for each stream where the plan is not divided, so that a stream has all rows that a model takes."""
    segment, outputs = step.segment, len(step.plan_step.outputs[0])
    if not step.execution.plan.coupled or len(step.streams) == 1:
        return await run_segment(segment, step.inputs(), outputs)
    streams = [step.execution.stacked(step.plan_step, [stream]) for stream in step.streams]
    parts = await asyncio.gather(*(run_segment(segment, arrays, outputs) for arrays in streams))
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


def _advance(execution: PlanExecution, step: ReadyStep, task: asyncio.Task[Sequence[Array]]) -> list[ReadyStep]:
    try:
        return execution.finish(step, task.result(), SegmentRun(step.segment, step.rows, 0.0))
    except OF_THE_REQUEST:
        raise
    except EspalierError as error:
        return execution.fail(step, error)
