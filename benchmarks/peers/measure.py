"""Measures all rivals against each other: all of them are started, and all but the one whose turn it is are stopped (SIGSTOP)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from benchmarks.harness.noise import Measurement, NoiseWatch, measure_quietly
from benchmarks.harness.pinning import Cores, find_cores, on_cores
from benchmarks.harness.timing import Timing, summarise
from benchmarks.peers.ask import FAILURES, check_answers, latencies, throughput, wait_for_answer
from benchmarks.peers.environments import RivalUnavailable, set_up
from benchmarks.peers.processes import available_bytes
from benchmarks.peers.server import Endpoint, Rival, RivalServer
from benchmarks.peers.work import Work
from contract.errors import EspalierError

_WAKE_S = 30.0

_Say = Callable[[str], None]
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class MeasurePlan:
    """How much is measured.

    counts: tasks of a request. turns: of each rival, runs: requests of each kind in a turn. clients, seconds: of each measurement of
    throughput, in each of `throughput_turns`. threads: of each session. ready_s: for a rival to give its first answer. room_bytes: of
    memory that must be there for another rival to be started. cores: of servers and clients.
    """

    counts: tuple[int, ...] = (1, 2, 8)
    turns: int = 10
    runs: int = 6
    clients: int = 8
    seconds: float = 5.0
    throughput_turns: int = 3
    threads: int = 2
    ready_s: float = 300.0
    room_bytes: int = 3 * 10**9
    cores: Cores = field(default_factory=find_cores)


@dataclass(frozen=True)
class RivalRow:
    """One rival over one protocol. By tasks of a request: the latency of one client, and requests per second of several clients.

    missing: why it could not be measured to the end, "" if it was; what was measured before is there. lines: of code and configuration
    that a user has to write. turns, noisy: how many measurements it had, and how many of them the rule of benchmarks.harness.noise calls
    noisy.
    """

    peer: str  # named so in the files of results
    variant: str
    version: str
    protocol: str = ""
    latency: dict[int, Timing] = field(default_factory=dict)
    per_s: dict[int, float] = field(default_factory=dict)
    memory_bytes: int = 0
    lines: int = 0
    missing: str = ""
    turns: int = 0
    noisy: int = 0

    @property
    def mark(self) -> str:
        """Return what is written beside the row."""
        return f"noisy ({self.noisy} of {self.turns} turns)" if self.noisy else ""


@dataclass(eq=False)
class Entrant:
    """A server that has started, over one protocol, and what was measured of it so far."""

    row: RivalRow
    server: RivalServer
    endpoint: Endpoint
    seconds: list[Measurement[dict[int, list[float]]]] = field(default_factory=list)
    per_s: list[Measurement[dict[int, float]]] = field(default_factory=list)

    def result(self) -> RivalRow:
        """Return its row with medians over all turns."""
        latency, rates = _by_count(turn.value for turn in self.seconds), _by_count(turn.value for turn in self.per_s)
        return replace(
            self.row,
            latency={count: summarise(np.ravel(seconds).tolist()) for count, seconds in latency.items()},
            per_s={count: float(np.median(found)) for count, found in rates.items()},
            turns=len(self.seconds) + len(self.per_s),
            noisy=sum(turn.noisy for turn in self.seconds) + sum(turn.noisy for turn in self.per_s),
        )


def measure(
    work: Work, rivals: Sequence[Rival], plan: MeasurePlan, watch: NoiseWatch, say: _Say = lambda sentence: None
) -> list[RivalRow]:
    """Return a row for each rival and protocol, in their order; one that could not be measured says why.

    Latency: the rivals take turns, in each turn one uncounted request and `runs` counted ones of each kind. Memory: of all of a
    server's processes after requests of each kind. watch: for noise; a turn with it is measured again.
    """
    with started_rivals(work, rivals, plan, say) as found:
        entrants = [one for one in found if isinstance(one, Entrant)]
        for turn in range(plan.turns):
            say(f"Measuring the latency of the peers, turn {turn + 1} of {plan.turns}")
            take_turns(entrants, lambda one: one.seconds.append(measure_quietly(lambda: _time(one, work, plan), watch)))
        for turn in range(plan.throughput_turns):
            say(f"Measuring the throughput of the peers, turn {turn + 1} of {plan.throughput_turns}")
            take_turns(entrants, lambda one: one.per_s.append(measure_quietly(lambda: _load(one, work, plan), watch)))
        return [one.result() if isinstance(one, Entrant) else one for one in found]


@contextmanager
def started_rivals(
    work: Work, rivals: Sequence[Rival], plan: MeasurePlan, say: _Say = lambda sentence: None
) -> Iterator[list[Entrant | RivalRow]]:
    """Yield every rival over each of its protocols, started, with right answers, and asleep; or the row that says why it is not."""
    unavailable = _set_up({rival.environment for rival in rivals if rival.environment}, say)
    with ExitStack() as stack:
        yield [one for rival in rivals for one in _enter(rival, unavailable.get(rival.environment, ""), work, plan, stack, say)]


def _set_up(environments: Iterable[str], say: _Say) -> dict[str, str]:
    """Make the environments that are not there yet; return why some cannot be had."""
    unavailable = {}
    for name in sorted(environments):
        try:
            set_up(name, say=say)
        except (RivalUnavailable, OSError) as error:
            unavailable[name] = str(error)
    return unavailable


def _enter(
    rival: Rival, unavailable: str, work: Work, plan: MeasurePlan, stack: ExitStack, say: _Say
) -> Iterator[Entrant | RivalRow]:
    """Start `rival`, check its answers, and put it to sleep."""
    row = RivalRow(rival.name, rival.variant, rival.version)
    try:
        if unavailable:
            raise RivalUnavailable(unavailable)
        if available_bytes() < plan.room_bytes:
            raise RivalUnavailable("the others had left too little memory; choose fewer with --only")
        say(f"Starting {rival.name}, {rival.variant}")
        with ExitStack() as own:
            with on_cores(plan.cores.server):
                server = own.enter_context(rival.serve(work, plan.threads))
            for endpoint in server.endpoints:
                asyncio.run(_first_answers(server, endpoint, work, plan))
            stack.push(own.pop_all())
    except (RivalUnavailable, EspalierError, *FAILURES) as error:
        yield replace(row, missing=str(error) or type(error).__name__)
        return
    memory = server.processes.memory_bytes()
    server.processes.pause()
    for endpoint in server.endpoints:
        yield Entrant(replace(row, protocol=endpoint.protocol, memory_bytes=memory, lines=server.lines), server, endpoint)


async def _first_answers(server: RivalServer, endpoint: Endpoint, work: Work, plan: MeasurePlan) -> None:
    await wait_for_answer(endpoint, work, plan.ready_s, server.check)
    await check_answers(endpoint, work, plan.counts, plan.clients)


def take_turns(entrants: Iterable[Entrant], run: Callable[[Entrant], None]) -> None:
    """Run each that still works; one that fails says so and is left out from then on, with what was measured before."""
    for entrant in entrants:
        if not entrant.row.missing:
            try:
                run(entrant)
            except (RivalUnavailable, *FAILURES) as error:
                reason = f"it failed when it was measured: {error or type(error).__name__}"
                entrant.row = replace(entrant.row, missing=reason)


def _time(entrant: Entrant, work: Work, plan: MeasurePlan) -> dict[int, list[float]]:
    with entrant.server.processes.awake(), on_cores(plan.cores.clients):
        asyncio.run(wake(entrant, work, plan.clients))
        return asyncio.run(latencies(entrant.endpoint, work, plan.counts, plan.runs))


def _load(entrant: Entrant, work: Work, plan: MeasurePlan) -> dict[int, float]:
    async def rates() -> dict[int, float]:
        return {count: await throughput(entrant.endpoint, work, count, plan.clients, plan.seconds) for count in plan.counts}

    with entrant.server.processes.awake(), on_cores(plan.cores.clients):
        asyncio.run(wake(entrant, work, plan.clients))
        return asyncio.run(rates())


async def wake(entrant: Entrant, work: Work, clients: int) -> None:
    """Ask until so many clients at once get answers: connections between its processes may have timed out while it slept."""
    server, endpoint = entrant.server, entrant.endpoint
    await asyncio.gather(*(wait_for_answer(endpoint, work, _WAKE_S, server.check) for _ in range(clients)))


def _by_count(turns: Iterable[Mapping[int, _Value]]) -> dict[int, list[_Value]]:
    found: dict[int, list[_Value]] = {}
    for turn in turns:
        for count, value in turn.items():
            found.setdefault(count, []).append(value)
    return found
