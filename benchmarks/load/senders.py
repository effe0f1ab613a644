"""What the clients do: closed and open loop, in a process away from the server's cores where there are enough.

A job and what came of it are plain data, so that they can go to that process.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from benchmarks.harness.closed_loop import Span, closed_loop
from benchmarks.harness.pinning import pin
from benchmarks.load.errors import Refused
from benchmarks.load.summary import Point, open_rate, percentiles
from benchmarks.load.wires import Call, Wire, connect

_FAILURES = (Refused, OSError, EOFError)
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Closed:
    """Every connection sends its next request when it has the answer to the one before. seconds: that are measured."""

    seconds: float


@dataclass(frozen=True)
class Open:
    """Requests are due at `due_s` (ascending, from 0 to `seconds` after the start), whether or not earlier ones are answered."""

    due_s: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class SendingJob:
    """requests: sent in turn. connections: each for one request at a time; what finds none free waits, and the waiting counts."""

    wire: Wire
    address: str
    requests: tuple[bytes, ...]
    connections: int
    load: Closed | Open


@dataclass(frozen=True)
class Sent:
    """latencies_ms: of the answers; in an open loop from when the request was due. failures: a sentence for each request without one.

    per_s: answers a second; in a closed loop by the rule of benchmarks.harness.closed_loop, in an open one by open_rate.
    """

    latencies_ms: tuple[float, ...]
    per_s: float
    failures: tuple[str, ...]

    def point(self, job: SendingJob) -> Point:
        """Return it in short."""
        answered = len(self.latencies_ms)
        offered = 0.0 if isinstance(job.load, Closed) else len(job.load.due_s) / job.load.seconds
        return Point(
            job.connections, offered, answered + len(self.failures), answered, self.per_s, percentiles(self.latencies_ms)
        )


def send(job: SendingJob) -> Sent:
    """Do the job."""
    return asyncio.run(_closed(job, job.load) if isinstance(job.load, Closed) else _open(job, job.load))


async def _closed(job: SendingJob, load: Closed) -> Sent:
    requests = itertools.cycle(job.requests)
    async with _connections(job) as calls:
        found = await closed_loop([partial(_ask_next, call, requests) for call in calls], load.seconds, _FAILURES)
    failures = tuple(map(_sentence, found.failures))
    return Sent(tuple(seconds * 1000 for seconds in found.latencies_s), found.per_s, failures)


async def _ask_next(call: Call, requests: Iterator[bytes]) -> None:
    await call(next(requests))


async def _open(job: SendingJob, load: Open) -> Sent:
    spans: list[Span] = []
    failures: list[str] = []
    requests = iter(zip(load.due_s, itertools.cycle(job.requests), strict=False))
    async with _connections(job) as calls:
        start = time.perf_counter()

        async def client(call: Call) -> None:
            for due, request in requests:
                await asyncio.sleep(start + due - time.perf_counter())
                try:
                    await call(request)
                except _FAILURES as error:
                    failures.append(_sentence(error))
                else:
                    spans.append(Span(due, time.perf_counter() - start))

        await asyncio.gather(*map(client, calls))
    return Sent(tuple(span.seconds * 1000 for span in spans), open_rate(spans, load.seconds), tuple(failures))


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__


@asynccontextmanager
async def _connections(job: SendingJob) -> AsyncIterator[list[Call]]:
    """Open the connections, and ask once, so that no measurement pays for that."""
    async with AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(connect(job.wire, job.address)) for _ in range(job.connections)]
        await calls[0](job.requests[0])
        yield calls


class Clients:
    """A process in which functions are run, one at a time."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def run(self, function: Callable[[Any], _Value], job: Any) -> _Value:
        """Return what `function` (of a module) gives for `job` in that process. Raises what it raises."""
        return self._pool.submit(function, job).result()


@contextmanager
def clients_on(cores: Sequence[int]) -> Iterator[Clients]:
    """Yield a process on `cores`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=pin, initargs=(cores,)) as pool:
        yield Clients(pool)
