"""One request for N tasks: the shared trunk against N separate networks, in one process, with the same threads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from benchmarks.timing import Timing, interleave
from serving.engines.base import Array
from serving.engines.embedded import EmbeddedEngine, session_options
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
    one after another without any server around them. `threads` None: as many as this process has cores. The shared request goes through the embedded engine as the server uses it.
    """
    plan = make_plan(repository, list(networks))
    sessions = [open_network(path, threads) for path in networks.values()]
    engine = EmbeddedEngine(repository, threads=threads)
    with asyncio.Runner() as runner:
        runner.run(engine.start())
        try:
            timings = interleave(
                {
                    "shared": lambda: runner.run(engine.infer(plan, rows)),
                    "separate": lambda: [session.run(None, {session.get_inputs()[0].name: rows}) for session in sessions],
                },
                rounds=rounds,
            )
        finally:
            runner.run(engine.aclose())
    return LatencyComparison(timings["shared"], timings["separate"])


def open_network(path: Path, threads: int | None = None) -> ort.InferenceSession:
    """Return a session of a whole network with the options of the embedded engine."""
    return ort.InferenceSession(str(path), session_options(threads), providers=["CPUExecutionProvider"])
