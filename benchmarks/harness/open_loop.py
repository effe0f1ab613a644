"""Steady load: requests at a fixed rate, whether or not earlier ones are answered, with latencies that count the waiting."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.http_wire import HttpConnection, KeptConnection

_RELATIVE, _ABSOLUTE = 1e-4, 1e-5  # of two runs of one network with other numbers of rows


@dataclass(frozen=True)
class Ask:
    """A request as it goes over the wire; `expected`: the outputs (FP32) of the answer to it when nothing else ran."""

    task: str
    request: bytes
    expected: bytes

    def is_right(self, answer: bytes) -> bool:
        """Whether `answer` is what is expected, to the bit or to what another batch size makes of it."""
        if answer == self.expected or len(answer) != len(self.expected):
            return answer == self.expected
        return bool(np.allclose(np.frombuffer(answer, "<f4"), np.frombuffer(self.expected, "<f4"), _RELATIVE, _ABSOLUTE))


@dataclass(frozen=True)
class TimedRequest:
    """One request. due_s: when it was to be sent, since the load began. latency_ms: from then to the answer.

    status: of HTTP, 0 when the connection broke. right: whether the values are those expected; identical: to the bit.
    """

    due_s: float
    latency_ms: float
    task: str
    status: int
    right: bool
    identical: bool


class OpenLoop:
    """Sends `asks` in turn, `rate` per second, over `connections` connections to `address`, until it is told to stop."""

    def __init__(self, address: tuple[str, int], asks: Sequence[Ask], rate: float, connections: int) -> None:
        self._address = address
        self._asks = asks
        self._rate = rate
        self._connections = connections
        self._numbers = itertools.count()
        self._stopping = False
        self._started = 0.0
        self.requests: list[TimedRequest] = []

    @property
    def now_s(self) -> float:
        """Return the seconds since the load began."""
        return time.perf_counter() - self._started

    async def run(self) -> None:
        """Send requests until `stop`, then wait for the answers."""
        self._started = time.perf_counter()
        await asyncio.gather(*(self._send() for _ in range(self._connections)))

    def stop(self) -> None:
        """Send no more."""
        self._stopping = True

    async def _send(self) -> None:
        connection = await KeptConnection.open(self._address)
        while not self._stopping:
            number = next(self._numbers)
            due = number / self._rate
            await asyncio.sleep(due - self.now_s)
            ask = self._asks[number % len(self._asks)]
            try:
                reply = await connection.ask(ask.request)
                status, answer = reply.status, reply.tensors
            except (OSError, EOFError):
                status, answer = 0, b""
            latency_ms = (self.now_s - due) * 1000
            self.requests.append(TimedRequest(due, latency_ms, ask.task, status, ask.is_right(answer), answer == ask.expected))
        await connection.close()


async def find_capacity(address: tuple[str, int], asks: Sequence[Ask], connections: int, seconds: float) -> float:
    """Return the requests per second that are answered when every connection sends one after the other."""
    end = time.perf_counter() + seconds
    answered = 0

    async def client(place: int) -> None:
        nonlocal answered
        connection = await HttpConnection.open(address)
        for number in itertools.count(place):
            if time.perf_counter() >= end:
                break
            await connection.ask(asks[number % len(asks)].request)
            answered += time.perf_counter() < end  # not those under way then: one of each connection would be too many
        await connection.close()

    await asyncio.gather(*(client(place) for place in range(connections)))
    return answered / seconds
