"""Closed loop: so many clients, each with one request after the other, and one rule by which all benchmarks count the answers.

The measured time begins when every client has had its first answer: the queue is then as long as it stays, whatever the server's speed.
A request counts for the part of its own time (sent to answered) that lies within the measured time. So requests on their way at the
beginning, which the server works on, are not forgotten; those on their way at the end do not stretch the time; and answers that come
many at once, as from a server that batches, make the rate no coarser.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf

Ask = Callable[[], Awaitable[object]]  # sends one request and waits for its answer


@dataclass(frozen=True, slots=True)
class Span:
    """An answered request, in seconds of one clock."""

    sent_s: float
    answered_s: float

    @property
    def seconds(self) -> float:
        """Return its latency."""
        return self.answered_s - self.sent_s

    def share_within(self, begin_s: float, end_s: float) -> float:
        """Return the part of its time, 0 to 1, that lies from `begin_s` to before `end_s`."""
        if self.seconds <= 0:
            return float(begin_s <= self.answered_s < end_s)
        return max(0.0, min(self.answered_s, end_s) - max(self.sent_s, begin_s)) / self.seconds


def rate(spans: Iterable[Span], begin_s: float, end_s: float) -> float:
    """Return the answers a second from `begin_s` to before `end_s`, which must be later."""
    return sum(span.share_within(begin_s, end_s) for span in spans) / (end_s - begin_s)


@dataclass(frozen=True)
class ClosedLoop:
    """What came of one. spans: of all answers, also from before and after the measured time. failures: of requests without an answer."""

    spans: tuple[Span, ...]
    failures: tuple[Exception, ...]
    begin_s: float
    end_s: float

    @property
    def per_s(self) -> float:
        """Return the answers a second within the measured time."""
        return rate(self.spans, self.begin_s, self.end_s)

    @property
    def latencies_s(self) -> tuple[float, ...]:
        """Return those of the requests sent within the measured time, also of what was answered after it: the slow ones belong to it."""
        return tuple(span.seconds for span in self.spans if self.begin_s <= span.sent_s < self.end_s)


async def closed_loop(clients: Sequence[Ask], seconds: float, failures: tuple[type[Exception], ...] = ()) -> ClosedLoop:
    """Let each of `clients` (at least one) ask again and again; `seconds` are measured once each has ended its first request.

    failures: that leave a request without an answer. Raises what else a client raises, when the others have stopped.
    """
    spans: list[Span] = []
    failed: list[Exception] = []
    begin = end = inf
    waiting = len(clients)

    async def ask_once(ask: Ask, sent: float) -> None:
        try:
            await ask()
        except failures as error:
            failed.append(error)
        else:
            spans.append(Span(sent, time.perf_counter()))

    async def client(ask: Ask) -> None:
        nonlocal begin, end, waiting
        await ask_once(ask, time.perf_counter())
        waiting -= 1
        if not waiting:
            begin = time.perf_counter()
            end = begin + seconds
        while (now := time.perf_counter()) < end:
            await ask_once(ask, now)

    tasks = [asyncio.ensure_future(client(ask)) for ask in clients]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return ClosedLoop(tuple(spans), tuple(failed), begin, end)
