"""One request for N tasks: the shared trunk against N separate networks, in one process, with the same threads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from benchmarks.networks import open_network
from benchmarks.timing import Timing, interleave
from serving.engines.base import Array
from serving.engines.embedded import EmbeddedEngine
from serving.plan import make_plan
from serving.repository import Repository


@dataclass(frozen=True)
class LatencyComparison:
    """Latency of one request for all tasks, and the speed-up (median separate / median shared)."""

    shared: Timing
    separate: Timing

    @property
    def speedup(self) -> float:
        """Return how many times faster the shared request is."""
        return self.separate.median_ms / self.shared.median_ms


def compare_latency(
    repository: Repository, networks: Mapping[str, Path], rows: Array, *, threads: int | None = None, rounds: int = 50
) -> LatencyComparison:
    """Measure a request of `rows` for all tasks in `networks` (whole task models as ONNX files, by task).

    The separate networks are well tuned: optimised sessions with the engine's own options and threads (idle ones do not spin), run
    one after another in one worker thread, as the engine does it, without any server around them. `threads` None: as many as this
    process has cores. The shared request goes through the embedded engine as the server uses it.
    """
    return asyncio.run(
        _compare(repository, [open_network(path, threads) for path in networks.values()], list(networks), rows, threads, rounds)
    )


async def _compare(
    repository: Repository, sessions: list[ort.InferenceSession], tasks: list[str], rows: Array, threads: int | None, rounds: int
) -> LatencyComparison:
    plan = make_plan(repository, tasks)
    engine = EmbeddedEngine(repository, threads=threads)
    loop = asyncio.get_running_loop()

    def run_all() -> None:
        for session in sessions:
            session.run(None, {session.get_inputs()[0].name: rows})

    await engine.start()
    try:
        with ThreadPoolExecutor(1) as worker:
            timings = await interleave(
                {
                    "shared": lambda: engine.infer(plan, {plan.inputs[0]: rows}),
                    "separate": lambda: loop.run_in_executor(worker, run_all),
                },
                rounds,
            )
    finally:
        await engine.aclose()
    return LatencyComparison(timings["shared"], timings["separate"])
