"""The Triton engine on a stand-in that behaves as Triton does (stand_in.py): started, asked and checked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from contract.plan import make_plan
from contract.repository import Repository
from serving.engines.base import Answer, Call
from serving.engines.triton.engine import TritonEngine, TritonEngineOptions
from serving.lifecycle import served_part
from serving.router import Router
from tests.serving.nets import images, whole
from tests.serving.stand_in import StandIn

QUICK = TritonEngineOptions(wait_s=10, statistics_s=0.05, resolve_s=0.1, keep_s=0)


@asynccontextmanager
async def started(repository: Repository, urls: str, options: TritonEngineOptions = QUICK) -> AsyncIterator[TritonEngine]:
    engine = TritonEngine(repository, urls, options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


def use(
    repository: Repository,
    triton: StandIn,
    work: Callable[[TritonEngine], Awaitable[None]],
    options: TritonEngineOptions = QUICK,
) -> None:
    async def run() -> None:
        async with started(repository, triton.url, options) as engine:
            await work(engine)

    asyncio.run(run())


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def ask(engine: TritonEngine, repository: Repository, *tasks: str, rows: int = 2, **call: Any) -> Answer:
    call.setdefault("tenant", tasks[0])
    return await engine.infer(make_plan(repository, tasks), {"image": images(rows)}, Call(**call))


def check(answer: Answer, *tasks: str, rows: int = 2) -> None:
    assert {*answer.outputs} == {*tasks}
    for task in tasks:
        np.testing.assert_allclose(answer.outputs[task], whole(task, images(rows)), rtol=1e-4, atol=1e-5)


def routed(repository: Repository, triton: StandIn, work: Callable[[Router], Awaitable[None]]) -> None:
    async def run() -> None:
        router = Router(repository, TritonEngine(repository, triton.url, QUICK))
        await router.start()
        try:
            await work(router)
        finally:
            await router.aclose()

    asyncio.run(run())


def without(repository: Repository, *tasks: str) -> Repository:
    return served_part(replace(repository, tasks={name: task for name, task in repository.tasks.items() if name not in tasks}))


async def with_engine(repository: Repository, urls: str, work: Callable[[TritonEngine], Awaitable[None]]) -> None:
    async with started(repository, urls) as engine:
        await work(engine)
