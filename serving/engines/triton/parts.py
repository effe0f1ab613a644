"""Requests of more rows than go at once: asked in parts, side by side, and answered as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np

from serving.engines.base import Answer, Array
from serving.plan import ExecutionPlan

Ask = Callable[[Mapping[str, Array]], Awaitable[Answer]]


async def in_parts(plan: ExecutionPlan, inputs: Mapping[str, Array], limit: int, ask: Ask) -> Answer:
    """Return what `ask` answers on `inputs`, arrays of shape (n, ...), given at most `limit` rows at a time (0: any number)."""
    rows = len(next(iter(inputs.values())))
    if not limit or rows <= limit:
        return await ask(inputs)
    parts = [{name: values[start : start + limit] for name, values in inputs.items()} for start in range(0, rows, limit)]
    asked = [asyncio.ensure_future(ask(part)) for part in parts]
    try:
        return joined(plan, await asyncio.gather(*asked))
    finally:
        for one in asked:  # when one has failed, or nobody waits any more
            one.cancel()


def joined(plan: ExecutionPlan, answers: Sequence[Answer]) -> Answer:
    """Return the answers of all parts as one; an output that failed in one part has failed."""
    errors = {name: error for answer in reversed(answers) for name, error in answer.errors.items()}
    outputs = {name: np.concatenate([answer.outputs[name] for answer in answers]) for name in plan.outputs if name not in errors}
    return Answer(outputs, tuple(run for answer in answers for run in answer.runs), errors)
