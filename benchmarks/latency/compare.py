"""One request for N tasks: the shared trunk against N separate networks, in one process, with the same threads."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness.timing import Timing, interleave
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE, SideBySide, open_network
from contract.dtypes import Array
from contract.plan import ExecutionPlan, make_plan
from contract.repository import Repository
from contract.system import available_cores
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions

_Run = Callable[[], Sequence[Array]]


@dataclass(frozen=True)
class LatencyComparison:
    """Latency of one request for all tasks. ways: of separate networks, one after another and side by side where there are two cores."""

    shared: Timing
    ways: Mapping[str, Timing]

    @property
    def way(self) -> str:
        """Return how separate networks are fastest."""
        return min(self.ways, key=lambda way: self.ways[way].median_ms)

    @property
    def separate(self) -> Timing:
        """Return the separate networks' time, as they are fastest."""
        return self.ways[self.way]

    @property
    def speedup(self) -> float:
        """Return how many times faster the shared request is."""
        return self.separate.median_ms / self.shared.median_ms


def compare_latency(
    repository: Repository, networks: Mapping[str, Path], rows: Array, *, threads: int | None = None, rounds: int = 50
) -> LatencyComparison:
    """Measure a request of `rows` for all tasks in `networks` (whole task models as ONNX files, by task).

    The separate networks are well tuned: optimised sessions with the engine's own options (idle threads do not spin), without any server
    around them, in both ways of benchmarks/models/separate.py. The shared request goes through the embedded engine as the server uses
    it, with a cache. `threads` None: as many as this process has cores.
    """
    threads = threads or available_cores()
    opened = [open_network(path, threads) for path in networks.values()]
    feed = {opened[0].get_inputs()[0].name: rows}
    with closing(SideBySide(networks, threads)) as several, tempfile.TemporaryDirectory() as cache:
        runs: dict[str, _Run] = {SEPARATE: lambda: [session.run(None, feed)[0] for session in opened]}
        if side_by_side := several.open(list(networks)):
            runs[SIDE_BY_SIDE] = partial(side_by_side, feed)
        options = EngineOptions(SessionStoreOptions(threads, provider="cpu", cache_folder=Path(cache)), learn_rows=True)
        engine = EmbeddedEngine(repository, options=options)
        return asyncio.run(_compare(engine, make_plan(repository, list(networks)), runs, rows, rounds))


async def _compare(
    engine: EmbeddedEngine, plan: ExecutionPlan, runs: Mapping[str, _Run], rows: Array, rounds: int
) -> LatencyComparison:
    loop = asyncio.get_running_loop()
    await engine.start()
    try:
        with ThreadPoolExecutor(1) as worker:
            calls = {way: partial(loop.run_in_executor, worker, run) for way, run in runs.items()}
            timings = await interleave({"shared": lambda: engine.infer(plan, {plan.inputs[0]: rows}), **calls}, rounds)
    finally:
        await engine.aclose()
    return LatencyComparison(timings.pop("shared"), timings)
