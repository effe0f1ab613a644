"""The measurements of the load benchmark, against a running server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.harness.noise import Measurement, NoiseWatch, measure_quietly
from benchmarks.harness.served import ServerProcess
from benchmarks.load.bare import BareEngine, EngineSetting
from benchmarks.load.loadgen import LoadgenResult, Scenario, ScenarioJob, run_scenario
from benchmarks.load.mixes import Mix, poisson_times
from benchmarks.load.senders import Clients, Closed, Open, SendingJob, Sent, send
from benchmarks.load.summary import KneeRule, Point, knee
from benchmarks.load.wires import Wire, address_of, make_requests
from contract.repository import Repository

_DRAWN = 1000  # requests after which a mix begins again
RATES = (0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)  # of the most that the closed loop gave


@dataclass(frozen=True)
class Extent:
    """How much is measured. seconds: of each load. clients: of the closed loop. rounds: of the comparison with the bare engine.

    rates: of the open loop, as shares of the closed one's best. connections: of the open loop.
    """

    seconds: float
    clients: tuple[int, ...]
    rates: tuple[float, ...]
    connections: int
    rounds: int


@dataclass(frozen=True)
class MeasuredLoad:
    """One load over one wire. failures: one sentence for each request without an answer."""

    wire: Wire
    mix: str
    point: Measurement[Point]
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wall:
    """Where a wire's server stops keeping up. unloaded_p99_ms: with one client. most_per_s: answers of the best closed loop."""

    wire: Wire
    unloaded_p99_ms: float
    most_per_s: float
    knee_per_s: float


@dataclass(frozen=True)
class Share:
    """Answers a second by round, of the bare engine and of the server over a wire, in turn."""

    wire: Wire
    bare_per_s: tuple[float, ...]
    served_per_s: tuple[float, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """Return the server's part of the bare engine's, round by round."""
        return tuple(served / bare for served, bare in zip(self.served_per_s, self.bare_per_s, strict=True))

    @property
    def share(self) -> float:
        """Return the median of the rounds."""
        return median(self.shares)


class Loads:
    """Puts loads on `server`. watch: for noise."""

    def __init__(
        self, repository: Repository, server: ServerProcess, clients: Clients, extent: Extent, watch: NoiseWatch
    ) -> None:
        self._repository, self._server, self._clients = repository, server, clients
        self._extent, self._watch = extent, watch

    def closed(self, wire: Wire, mix: Mix, clients: int) -> MeasuredLoad:
        """Measure `clients` clients, each with one request after the other."""
        return self._measure(wire, mix, clients, Closed(self._extent.seconds))

    def open(self, wire: Wire, mix: Mix, per_s: float) -> MeasuredLoad:
        """Measure requests that arrive at random, `per_s` a second."""
        due = poisson_times(per_s, self._extent.seconds, seed=1) or (0.0,)
        return self._measure(wire, mix, self._extent.connections, Open(due, self._extent.seconds))

    def scenario(self, scenario: Scenario, wire: Wire, mix: Mix, per_s: float, limit_ms: float) -> LoadgenResult:
        """Run one of MLPerf's scenarios. Raises LoadGenMissing."""
        job = self._job(wire, mix, self._extent.connections, Open((), self._extent.seconds))
        asked = ScenarioJob(scenario, wire, job.address, job.requests, job.connections, self._extent.seconds, per_s, limit_ms)
        return self._clients.run(run_scenario, asked)

    def share_of(self, bare: BareEngine, wire: Wire, mix: Mix, clients: int) -> Share:
        """Compare the server with `bare`, in turn, both asked by `clients` callers for the same."""
        models = mix.draw(_DRAWN, seed=0)
        job = self._job(wire, mix, clients, Closed(self._extent.seconds))
        bare_per_s, served_per_s = [], []
        for _ in range(self._extent.rounds):
            bare_per_s.append(bare.per_s(models, clients, self._extent.seconds))
            served_per_s.append(self._clients.run(send, job).point(job).per_s)
        return Share(wire, tuple(bare_per_s), tuple(served_per_s))

    def _measure(self, wire: Wire, mix: Mix, connections: int, load: Closed | Open) -> MeasuredLoad:
        job = self._job(wire, mix, connections, load)
        found = measure_quietly(lambda: self._clients.run(send, job), self._watch)
        sent: Sent = found.value
        return MeasuredLoad(wire, mix.name, Measurement(sent.point(job), found.drift, found.runs, found.others), sent.failures)

    def _job(self, wire: Wire, mix: Mix, connections: int, load: Closed | Open) -> SendingJob:
        requests = make_requests(self._repository, wire, mix.models)
        drawn = tuple(requests[model] for model in mix.draw(_DRAWN, seed=0))
        return SendingJob(wire, address_of(self._server, wire), drawn, connections, load)


def find_wall(wire: Wire, closed: Sequence[MeasuredLoad], opened: Sequence[MeasuredLoad], rule: KneeRule) -> Wall:
    """Return the knee of `wire`; the closed loop with the fewest clients counts as unloaded."""
    points = [measured.point.value for measured in closed if measured.wire is wire]
    unloaded = min(points, key=lambda point: point.clients).latency
    p99 = unloaded.p99_ms if unloaded else 0.0
    rates = [measured.point.value for measured in opened if measured.wire is wire]
    return Wall(wire, p99, max(point.per_s for point in points), knee(rates, p99, rule))


def settings_per_s(
    repository: Repository, mix: Mix, tried: Sequence[EngineSetting], cache: Path, callers: int, seconds: float, turns: int = 3
) -> dict[EngineSetting, float]:
    """Return the answers a second of the bare engine with each setting: medians of `turns` measurements in turn.

    cache: of optimised segments.
    """
    models = mix.draw(_DRAWN, seed=0)
    with BareEngine(repository, tried[0], cache):
        pass  # every segment is optimised and kept once, which the first one measured would pay for
    found: dict[EngineSetting, list[float]] = {setting: [] for setting in tried}
    for _ in range(turns):
        for setting, rates in found.items():
            with BareEngine(repository, setting, cache) as engine:
                rates.append(engine.per_s(models, callers, seconds))
    return {setting: median(rates) for setting, rates in found.items()}
