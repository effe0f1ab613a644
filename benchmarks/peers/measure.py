"""Measures all peers against each other: all of them are started, and all but the one whose turn it is are stopped (SIGSTOP)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.peers.environments import PeerUnavailable
from benchmarks.peers.peers import Endpoint, Peer, Server
from benchmarks.peers.work import Work
from benchmarks.timing import Timing, summarise
from serving.engines.base import Array
from serving.errors import ServingError

_TOLERANCE = 1e-3  # of the largest score

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    counts: tasks of a request. turns: of each peer, runs: requests of each kind in a turn. clients, seconds: of each measurement of
    throughput, in each of `throughput_turns`; 0 seconds: none. threads: of each session. ready_s: for a peer to give its first answer.
    """

    counts: tuple[int, ...] = (1, 2, 8)
    turns: int = 10
    runs: int = 6
    clients: int = 8
    seconds: float = 5.0
    throughput_turns: int = 3
    threads: int = 2
    ready_s: float = 300.0


@dataclass(frozen=True)
class Row:
    """One peer over one protocol. By tasks of a request: the latency of one client, and requests per second of several clients.

    missing: why it could not be measured, "" if it was. lines: of code and configuration that a user has to write.
    """

    peer: str
    variant: str
    version: str
    protocol: str = ""
    latency: dict[int, Timing] = field(default_factory=dict)
    per_s: dict[int, float] = field(default_factory=dict)
    memory_bytes: int = 0
    lines: int = 0
    missing: str = ""


@dataclass(eq=False)
class _Entrant:
    """A server that has started, over one protocol, and what was measured of it so far."""

    row: Row
    server: Server
    endpoint: Endpoint
    seconds: dict[int, list[float]] = field(default_factory=dict)
    per_s: dict[int, list[float]] = field(default_factory=dict)

    def result(self) -> Row:
        if self.row.missing:
            return self.row
        latency = {count: summarise(seconds) for count, seconds in self.seconds.items()}
        return replace(self.row, latency=latency, per_s={count: float(np.median(rates)) for count, rates in self.per_s.items()})


def measure(work: Work, peers: Sequence[Peer], plan: Plan, say: Say = lambda sentence: None) -> list[Row]:
    """Return a row for each peer and protocol, in their order; one that could not be measured says why.

    Latency: the peers take turns, in each turn one uncounted request and `runs` counted ones of each kind. Memory: of all of a
    server's processes after requests of each kind.
    """
    with ExitStack() as stack:
        entrants = [entrant for peer in peers for entrant in _enter(peer, work, plan, stack, say)]
        for turn in range(plan.turns):
            say(f"latency, turn {turn + 1} of {plan.turns}")
            _take_turns(entrants, lambda entrant: _time(entrant, work, plan))
        for turn in range(plan.throughput_turns if plan.seconds else 0):
            say(f"throughput, turn {turn + 1} of {plan.throughput_turns}")
            _take_turns(entrants, lambda entrant: _load(entrant, work, plan))
        return [entrant.result() if isinstance(entrant, _Entrant) else entrant for entrant in entrants]


def _enter(peer: Peer, work: Work, plan: Plan, stack: ExitStack, say: Say) -> Iterator[_Entrant | Row]:
    """Start `peer`, check its answers, and put it to sleep."""
    row = Row(peer.name, peer.variant, peer.version)
    say(f"starting {peer.name}, {peer.variant}")
    with ExitStack() as own:
        try:
            server = own.enter_context(peer.serve(work, plan.threads))
            for endpoint in server.endpoints:
                asyncio.run(_check(server, endpoint, work, plan))
        except (PeerUnavailable, ServingError, RuntimeError, OSError) as error:
            yield replace(row, missing=f"{error}")
            return
        stack.push(own.pop_all())
    memory, lines = server.processes.memory_bytes(), server.lines
    server.processes.pause()
    for endpoint in server.endpoints:
        yield _Entrant(replace(row, protocol=endpoint.protocol, memory_bytes=memory, lines=lines), server, endpoint)


async def _check(server: Server, endpoint: Endpoint, work: Work, plan: Plan) -> None:
    """Wait for the first answer; then compare those for each number of tasks. Raises PeerUnavailable."""
    deadline = time.monotonic() + plan.ready_s
    while not await _answers(endpoint, work, server, final=time.monotonic() > deadline):
        await asyncio.sleep(0.2)
    async with endpoint.wire.connect(endpoint.port) as ask:
        for count in plan.counts:
            tasks = work.tasks[:count]
            found = endpoint.wire.read(await ask(endpoint.wire.request(work.image, tasks)))
            wrong = [task for task in tasks if task not in found or not _is_right(found[task], work.answers[task])]
            if wrong or len(found) != count:
                raise PeerUnavailable(f"its answers are wrong for {', '.join(wrong) or 'tasks that nobody asked for'}")


async def _answers(endpoint: Endpoint, work: Work, server: Server, final: bool) -> bool:
    try:
        async with asyncio.timeout(60), endpoint.wire.connect(endpoint.port) as ask:
            await ask(endpoint.wire.request(work.image, work.tasks[:1]))
    except (OSError, EOFError, RuntimeError, TimeoutError) as error:
        server.check()
        if final:
            raise PeerUnavailable(f"it was not ready in time: {error}") from error
        return False
    return True


def _is_right(found: Array, wanted: Array) -> bool:
    return found.shape == wanted.shape and bool(np.allclose(found, wanted, rtol=0, atol=_TOLERANCE * float(np.abs(wanted).max())))


def _take_turns(entrants: Sequence[_Entrant | Row], run: Callable[[_Entrant], None]) -> None:
    """Run each that still works, alone on the machine; one that fails says so and is left out from then on."""
    for entrant in entrants:
        if isinstance(entrant, _Entrant) and not entrant.row.missing:
            try:
                with entrant.server.processes.awake():
                    run(entrant)
            except (OSError, EOFError, RuntimeError, TimeoutError) as error:
                entrant.row = replace(entrant.row, missing=f"it failed when it was measured: {error or type(error).__name__}")


def _time(entrant: _Entrant, work: Work, plan: Plan) -> None:
    asyncio.run(_time_requests(entrant, work, plan))


async def _time_requests(entrant: _Entrant, work: Work, plan: Plan) -> None:
    wire = entrant.endpoint.wire
    async with asyncio.timeout(120), wire.connect(entrant.endpoint.port) as ask:
        for count in plan.counts:
            request = wire.request(work.image, work.tasks[:count])
            await ask(request)
            for _ in range(plan.runs):
                started = time.perf_counter()
                await ask(request)
                entrant.seconds.setdefault(count, []).append(time.perf_counter() - started)


def _load(entrant: _Entrant, work: Work, plan: Plan) -> None:
    for count in plan.counts:
        rate = asyncio.run(_throughput(entrant.endpoint, work, count, plan))
        entrant.per_s.setdefault(count, []).append(rate)


async def _throughput(endpoint: Endpoint, work: Work, count: int, plan: Plan) -> float:
    """Return requests per second of `clients` connections, each one request at a time; a fifth of the time before warms up.

    The first client asks for the first `count` tasks, the second for `count` from the second on, and so forth.
    """
    answered = 0
    begin = time.perf_counter() + plan.seconds / 5
    end = begin + plan.seconds

    async def client(number: int) -> None:
        nonlocal answered
        tasks = [work.tasks[(number + place) % len(work.tasks)] for place in range(count)]
        request = endpoint.wire.request(work.image, tasks)
        async with endpoint.wire.connect(endpoint.port) as ask:
            while time.perf_counter() < end:
                await ask(request)
                answered += begin <= time.perf_counter() < end

    async with asyncio.timeout(120 + plan.seconds):
        await asyncio.gather(*(client(number) for number in range(plan.clients)))
    return answered / plan.seconds
