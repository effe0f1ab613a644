"""Asks a Triton for the parts of a request side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from contract.dtypes import Array
from contract.plan import ExecutionPlan
from serving.engines.base import Answer
from serving.engines.scheduling.row_chunks import join, split

Ask = Callable[[Mapping[str, Array]], Awaitable[Answer]]


async def in_parts(plan: ExecutionPlan, inputs: Mapping[str, Array], limit: int, ask: Ask) -> Answer:
    """Return what `ask` answers on `inputs`, arrays of shape (n, ...), given at most `limit` rows at a time (0: any number).

    Raises TooManyRows for a plan that must not be divided.
    """
    parts = split(plan, inputs, limit)
    if len(parts) == 1:
        return await ask(inputs)
    asked = [asyncio.ensure_future(ask(part)) for part in parts]
    try:
        return join(plan, await asyncio.gather(*asked))
    finally:
        for one in asked:  # when one has failed, or nobody waits any more
            one.cancel()
