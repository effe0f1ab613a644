"""What the clients do: closed and open loop. A job and what came of it are plain data, so that they can go to another process."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from benchmarks.load.errors import Refused
from benchmarks.load.summary import Point, percentiles
from benchmarks.load.wires import Call, Wire, connect

_FAILURES = (Refused, OSError, EOFError)


@dataclass(frozen=True)
class Closed:
    """Every connection sends its next request when it has the answer to the one before. warm_up_s: that do not count."""

    seconds: float
    warm_up_s: float


@dataclass(frozen=True)
class Open:
    """Requests are due at `due_s` (seconds from the start, ascending), whether or not earlier ones are answered."""

    due_s: tuple[float, ...]


@dataclass(frozen=True)
class Job:
    """requests: sent in turn. connections: each for one request at a time; what finds none free waits, and the waiting counts."""

    wire: Wire
    address: str
    requests: tuple[bytes, ...]
    connections: int
    load: Closed | Open


@dataclass(frozen=True)
class Sent:
    """latencies_ms: of the answers; in an open loop from when the request was due. failures: a sentence for each request without one.

    seconds: to the last answer; in a closed loop since the warm-up, in an open one since the first answer.
    """

    latencies_ms: tuple[float, ...]
    seconds: float
    failures: tuple[str, ...]

    def point(self, job: Job) -> Point:
        """Return it in short."""
        answered = len(self.latencies_ms)
        sent = answered + len(self.failures)
        if isinstance(job.load, Closed):
            offered, per_s = 0.0, answered / self.seconds
        else:  # between the first and the last, so that what a request takes does not count as falling behind
            offered, per_s = _per_s(sent, _span(job.load.due_s)), _per_s(answered, self.seconds)
        return Point(job.connections, offered, sent, answered, per_s, percentiles(self.latencies_ms))


def send(job: Job) -> Sent:
    """Do the job."""
    return asyncio.run(_closed(job, job.load) if isinstance(job.load, Closed) else _open(job, job.load))


def _span(due_s: Sequence[float]) -> float:
    return due_s[-1] - due_s[0] if due_s else 0.0


def _per_s(count: int, seconds: float) -> float:
    """Return the rate of `count` events of which the last comes `seconds` after the first."""
    return (count - 1) / seconds if count > 1 and seconds > 0 else 0.0


class _Tally:
    """Counts what comes back."""

    def __init__(self) -> None:
        self._latencies_ms: list[float] = []
        self._failures: list[str] = []
        self.first = self.last = 0.0

    async def ask(self, call: Call, request: bytes, due: float, counts: bool) -> None:
        try:
            await call(request)
        except _FAILURES as error:
            self._failures.append(str(error) or type(error).__name__)
        else:
            self.last = time.perf_counter()
            self.first = self.first or self.last
            if counts:
                self._latencies_ms.append((self.last - due) * 1000)

    def sent(self, seconds: float) -> Sent:
        return Sent(tuple(self._latencies_ms), max(seconds, 1e-9), tuple(self._failures))


async def _closed(job: Job, load: Closed) -> Sent:
    tally, requests = _Tally(), itertools.cycle(job.requests)
    async with _connections(job) as calls:
        begin = time.perf_counter() + load.warm_up_s
        end = begin + load.seconds

        async def client(call: Call) -> None:
            while (now := time.perf_counter()) < end:
                await tally.ask(call, next(requests), now, counts=now >= begin)

        await asyncio.gather(*map(client, calls))
    return tally.sent(tally.last - begin)


async def _open(job: Job, load: Open) -> Sent:
    tally, requests = _Tally(), iter(zip(load.due_s, itertools.cycle(job.requests), strict=False))
    async with _connections(job) as calls:
        begin = time.perf_counter()

        async def client(call: Call) -> None:
            for due, request in requests:
                await asyncio.sleep(begin + due - time.perf_counter())
                await tally.ask(call, request, begin + due, counts=True)

        await asyncio.gather(*map(client, calls))
    return tally.sent(tally.last - tally.first)


@asynccontextmanager
async def _connections(job: Job) -> AsyncIterator[list[Call]]:
    """Open the connections, and ask once, so that no measurement pays for that."""
    async with AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(connect(job.wire, job.address)) for _ in range(job.connections)]
        await calls[0](job.requests[0])
        yield calls
