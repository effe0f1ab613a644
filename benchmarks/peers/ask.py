"""Asks one endpoint: until it is ready, for answers that are right, and for how long and how often it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

import numpy as np

from benchmarks.harness.closed_loop import ClosedLoop, closed_loop
from benchmarks.peers.environments import RivalUnavailable
from benchmarks.peers.server import Endpoint
from benchmarks.peers.work import Work, WorkSample
from contract.dtypes import Array

FAILURES = (OSError, EOFError, RuntimeError, TimeoutError, ValueError, KeyError, TypeError)  # the last three: no readable answer
_ANSWER_S = 60.0


async def wait_for_answer(endpoint: Endpoint, work: Work, ready_s: float, check: Callable[[], None]) -> None:
    """Ask for one task until there is an answer, calling `check` in between. Raises what that raises; RivalUnavailable after `ready_s`."""
    deadline = time.monotonic() + ready_s
    while failure := await _ask_once(endpoint, work):
        check()
        if time.monotonic() > deadline:
            raise RivalUnavailable(f"it was not ready in {ready_s:.0f} s: {failure}")
        await asyncio.sleep(0.1)


async def _ask_once(endpoint: Endpoint, work: Work) -> str:
    """Return why there was no answer, "" when there was one."""
    try:
        async with asyncio.timeout(_ANSWER_S), endpoint.wire.connect(endpoint.port) as ask:
            await ask(endpoint.wire.request(work.image, work.tasks[:1]))
    except FAILURES as error:
        return str(error) or type(error).__name__
    return ""


async def check_answers(endpoint: Endpoint, work: Work, counts: Sequence[int], clients: int) -> None:
    """Compare answers with the right ones: for each number of tasks, and of clients at once that want different things.

    Raises RivalUnavailable.
    """
    async with asyncio.timeout(2 * _ANSWER_S):
        for count in counts:
            await _check(endpoint, work.samples[0], work.tasks[:count])
        samples = [work.samples[number % len(work.samples)] for number in range(clients)]
        await asyncio.gather(
            *(_check(endpoint, sample, _turned(work, place, (len(work.tasks) + 1) // 2)) for place, sample in enumerate(samples))
        )


async def _check(endpoint: Endpoint, sample: WorkSample, tasks: Sequence[str]) -> None:
    async with endpoint.wire.connect(endpoint.port) as ask:
        answer = await ask(endpoint.wire.request(sample.image, tasks))
    try:
        found = endpoint.wire.read(answer)
    except (ValueError, KeyError, TypeError) as error:
        raise RivalUnavailable(f"its answer cannot be read: {error}") from error
    wrong = [task for task in tasks if task not in found or not _is_right(found[task], sample.answers[task], endpoint.allowed)]
    if wrong or len(found) != len(tasks):
        raise RivalUnavailable(f"its answers are wrong for {', '.join(wrong) or 'tasks that nobody asked for'}")


def _turned(work: Work, start: int, count: int) -> list[str]:
    """Return `count` tasks from place `start` on, and from the first on after the last."""
    return [work.tasks[(start + place) % len(work.tasks)] for place in range(count)]


def _is_right(found: Array, wanted: Array, allowed: float) -> bool:
    return found.shape == wanted.shape and bool(np.allclose(found, wanted, rtol=0, atol=allowed * float(np.abs(wanted).max())))


async def latencies(endpoint: Endpoint, work: Work, counts: Sequence[int], runs: int) -> dict[int, list[float]]:
    """Return the seconds of `runs` requests for each number of tasks, one after the other; one before them is not counted."""
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    async with asyncio.timeout(2 * _ANSWER_S), endpoint.wire.connect(endpoint.port) as ask:
        for count in counts:
            request = endpoint.wire.request(work.image, work.tasks[:count])
            await ask(request)
            for _ in range(runs):
                started = time.perf_counter()
                await ask(request)
                seconds[count].append(time.perf_counter() - started)
    return seconds


async def throughput(endpoint: Endpoint, work: Work, count: int, clients: int, seconds: float) -> float:
    """Return the requests per second of `load`."""
    return (await load(endpoint, work, count, clients, seconds)).per_s


async def load(endpoint: Endpoint, work: Work, count: int, clients: int, seconds: float) -> ClosedLoop:
    """Return what came of `clients` connections, each one request at a time, by the rule of benchmarks.harness.closed_loop.

    The first client asks for the first `count` tasks, the second for `count` from the second on, and so forth.
    """
    requests = [endpoint.wire.request(work.image, _turned(work, number, count)) for number in range(clients)]
    async with asyncio.timeout(2 * _ANSWER_S + seconds), AsyncExitStack() as stack:
        asks = [await stack.enter_async_context(endpoint.wire.connect(endpoint.port)) for _ in requests]
        return await closed_loop([partial(ask, request) for ask, request in zip(asks, requests, strict=True)], seconds)
