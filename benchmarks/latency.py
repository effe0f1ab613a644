"""One request for N tasks: the shared trunk against N separate networks, in one process, with the same threads.

Run as `python -m benchmarks.latency --network resnet50 --tasks 8 --block layer4.1` to measure a family with random weights.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
                {"shared": lambda: engine.infer(plan, rows), "separate": lambda: loop.run_in_executor(worker, run_all)}, rounds
            )
    finally:
        await engine.aclose()
    return LatencyComparison(timings["shared"], timings["separate"])


def open_network(path: Path, threads: int | None = None) -> ort.InferenceSession:
    """Return a session of a whole network with the options of the embedded engine."""
    return ort.InferenceSession(str(path), session_options(threads), providers=["CPUExecutionProvider"])


def main() -> None:
    """Measure a network with random weights and `--tasks` tasks, each tuned in one block, and print what sharing wins."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--network", default="resnet50", help="a timm name")
    parser.add_argument("--block", default="layer4.1", help="the block that every task tunes")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="pixels of the square input")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()

    from benchmarks.flops import separate_cost, shared_cost
    from benchmarks.memory import compare_memory
    from benchmarks.synthetic import make_family, random_backbone

    with tempfile.TemporaryDirectory() as folder:
        backbone = random_backbone(arguments.network, arguments.size)
        family = make_family(backbone, [(arguments.block,)] * arguments.tasks, 100, Path(folder))
        repository, names = family.repository, list(family.networks)
        rows = np.random.default_rng(0).integers(0, 256, (1, arguments.size, arguments.size, 3), dtype=np.uint8)
        latency = compare_latency(repository, family.networks, rows, rounds=arguments.rounds)
        memory = compare_memory(repository.path, family.networks)
    shared, separate = shared_cost(repository, names), separate_cost(repository, names)
    print(f"{arguments.network}, {arguments.size} px, {arguments.tasks} tasks, each with {arguments.block} and a head of its own")
    print(
        f"MACs      shared {shared.macs / 1e9:.2f} G   separate {separate.macs / 1e9:.2f} G   ratio {separate.macs / shared.macs:.2f}"
    )
    print(f"latency   shared {latency.shared}   separate {latency.separate}   ratio {latency.speedup:.2f}")
    print(f"memory    shared {memory.shared_resident / 1e6:.0f} MB   separate {memory.separate_resident / 1e6:.0f} MB")
    print(f"disk      shared {memory.shared_disk / 1e6:.0f} MB   separate {memory.separate_disk / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
