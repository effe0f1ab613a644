"""The family of nets.py as segments that a test can hold up, and a scheduler over them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from contract.dtypes import Array
from contract.plan import make_plan
from serving.engines.base import Answer, Call
from serving.engines.scheduling.scheduler import Scheduler
from tests.serving.nets import LAYERS, images, make_repository

REPOSITORY = make_repository()
Result = TypeVar("Result")


class Segments:
    """The family of nets.py as segments that can be held up, and that note what ran."""

    def __init__(self, **broken: Callable[..., Any]) -> None:
        self.runs: list[tuple[str, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self._broken = {name.replace("_", "-"): function for name, function in broken.items()}

    def __call__(self, name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        self.entered.set()
        self.gate.wait()
        self.runs.append((name, len(inputs[0])))
        return [self._broken.get(name, LAYERS[name])(*inputs)]


def work_with(
    action: Callable[[Scheduler], Awaitable[Result]], segments: Segments | None = None, limit: int = 6, **options: Any
) -> Result:
    async def go() -> Result:
        scheduler = Scheduler(segments or Segments(), lambda name: limit, **options)
        scheduler.start()
        try:
            return await asyncio.wait_for(action(scheduler), 30)
        finally:
            await scheduler.aclose()

    return asyncio.run(go())


def infer(scheduler: Scheduler, tasks: Sequence[str], rows: int = 1, seed: int = 0, **call: Any) -> Awaitable[Answer]:
    call.setdefault("tenant", tasks[0])
    return scheduler.infer(make_plan(REPOSITORY, tasks), {"image": images(rows, seed)}, Call(**call))


async def behind_the_gate(segments: Segments, scheduler: Scheduler) -> asyncio.Task[Answer]:
    """Return a request whose first run is being held up."""
    segments.gate.clear()
    segments.entered.clear()
    first = asyncio.ensure_future(infer(scheduler, ["late"], tenant="first"))
    await asyncio.to_thread(segments.entered.wait)
    return first
