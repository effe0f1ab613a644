"""MLPerf's own load generator (mlcommons-loadgen) against a server: its scenarios SingleStream, Server and Offline.

It decides when requests are sent and judges the result by its own rules. Runs this short are no submissions to MLPerf.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.load.errors import LoadGenMissing, Refused
from benchmarks.load.wires import Call, Wire, connect


class Scenario(StrEnum):
    """single: one request after the other. server: Poisson arrivals. offline: everything at once."""

    single = "SingleStream"
    server = "Server"
    offline = "Offline"


# The figure by which MLPerf compares systems, as its summary calls it.
_FIGURES = {
    Scenario.single: "90.0th percentile latency (ns)",
    Scenario.server: "Completed samples per second",
    Scenario.offline: "Samples per second",
}


@dataclass(frozen=True)
class ScenarioJob:
    """requests: the samples. connections: that the client has at most. per_s: that are offered (server) or expected (offline).

    limit_ms: that 99 percent of the requests may take in the scenario server.
    """

    scenario: Scenario
    wire: Wire
    address: str
    requests: tuple[bytes, ...]
    connections: int
    seconds: float
    per_s: float
    limit_ms: float


@dataclass(frozen=True)
class LoadgenResult:
    """What LoadGen says. figure: requests a second, or in SingleStream the 90th percentile of the latency in milliseconds.

    valid: whether the run fulfils all rules, its length among them. in_time: whether the limit of latency is met, None without one.
    failures: requests without an answer, a sentence each.
    """

    scenario: Scenario
    figure: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    valid: bool
    in_time: bool | None
    failures: tuple[str, ...]


def is_installed() -> bool:
    """Whether LoadGen is there."""
    try:
        _loadgen()
    except LoadGenMissing:
        return False
    return True


def run_scenario(job: ScenarioJob) -> LoadgenResult:
    """Run one scenario in this process. Raises LoadGenMissing."""
    loadgen = _loadgen()
    with tempfile.TemporaryDirectory() as folder:
        log = loadgen.LogSettings()
        log.log_output.outdir = folder
        log.log_output.copy_summary_to_stdout = False
        log.enable_trace = False
        with _System(loadgen, job) as system:
            sut = loadgen.ConstructSUT(system.issue, lambda: None)
            count = len(job.requests)
            samples = loadgen.ConstructQSL(count, count, lambda indices: None, lambda indices: None)
            loadgen.StartTestWithLogSettings(sut, samples, _settings(loadgen, job), log, "")
            loadgen.DestroyQSL(samples)
            loadgen.DestroySUT(sut)
        summary = (Path(folder) / "mlperf_log_summary.txt").read_text()
    return read_summary(job.scenario, summary, tuple(system.failures))


def read_summary(scenario: Scenario, summary: str, failures: Sequence[str] = ()) -> LoadgenResult:
    """Return what LoadGen's summary says. Raises KeyError where it does not say it."""
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in summary.splitlines())}
    figure = float(found[_FIGURES[scenario]])

    def latency_ms(percent: int) -> float:
        return float(found[f"{percent}.00 percentile latency (ns)"]) / 1e6

    return LoadgenResult(
        scenario,
        figure / 1e6 if scenario is Scenario.single else figure,
        latency_ms(50),
        latency_ms(90),
        latency_ms(99),
        found["Result is"] == "VALID" and not failures,
        found["Performance constraints satisfied"] == "Yes" if scenario is Scenario.server else None,
        tuple(failures),
    )


class _System:
    """The system under test: takes queries in LoadGen's thread and sends them from an event loop in a thread of its own."""

    def __init__(self, loadgen: Any, job: ScenarioJob) -> None:
        self._loadgen, self._job = loadgen, job
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._free: asyncio.Queue[Call] = asyncio.Queue()
        self._stack = AsyncExitStack()
        self._running: set[asyncio.Future[None]] = set()
        self.failures: list[str] = []

    def __enter__(self) -> _System:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result()
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stack.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def issue(self, samples: Sequence[Any]) -> None:
        """Send these samples; returns at once."""
        pairs = [(sample.id, sample.index) for sample in samples]  # the objects are LoadGen's
        self._loop.call_soon_threadsafe(self._start, pairs)

    async def _connect(self) -> None:
        for _ in range(self._job.connections):
            self._free.put_nowait(await self._stack.enter_async_context(connect(self._job.wire, self._job.address)))

    def _start(self, pairs: Sequence[tuple[int, int]]) -> None:
        for pair in pairs:
            answer = asyncio.ensure_future(self._answer(*pair))
            self._running.add(answer)  # the loop alone would not keep it alive
            answer.add_done_callback(self._running.discard)

    async def _answer(self, number: int, index: int) -> None:
        call = await self._free.get()
        try:
            await call(self._job.requests[index])
        except (Refused, OSError, EOFError) as error:
            self.failures.append(str(error) or type(error).__name__)
        finally:
            self._free.put_nowait(call)
            self._loadgen.QuerySamplesComplete([self._loadgen.QuerySampleResponse(number, 0, 0)])


def _settings(loadgen: Any, job: ScenarioJob) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, job.scenario)
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(job.seconds * 1000)
    settings.min_query_count = 1
    settings.single_stream_expected_latency_ns = int(1e9 / job.per_s)
    settings.server_target_qps = job.per_s
    settings.server_target_latency_ns = int(job.limit_ms * 1e6)
    settings.server_target_latency_percentile = 0.99
    settings.offline_expected_qps = job.per_s
    return settings


def _loadgen() -> Any:
    try:
        return import_module("mlperf_loadgen")
    except ImportError:
        raise LoadGenMissing from None
