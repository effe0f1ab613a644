"""One request for eight tasks on each engine and precision of this machine, in turn: `python -m benchmarks.studies.engines`.

The families are those of `espalier bench latency` at their first fork. Times are medians, of the clock and of the processor (all threads,
user and system), which says more where others work on the same cores. The error is the largest difference from ONNX Runtime's answers in
fp32, as a share of their spread.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.framework.options import Options, Scale
from benchmarks.models.families import choose_networks, network_cache
from contract.dtypes import Array
from contract.plan import make_plan
from contract.repository import Repository
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import Precision, RuntimeKind, SessionStoreOptions

ENGINES = {
    "ONNX Runtime fp32": (RuntimeKind.onnxruntime, Precision.fp32),
    "OpenVINO fp32": (RuntimeKind.openvino, Precision.fp32),
    "OpenVINO bf16": (RuntimeKind.openvino, Precision.bf16),
}
_FIRST = next(iter(ENGINES))


@dataclass(frozen=True)
class _Took:
    """Medians of one engine, seconds. error: of its answers, a share of the spread."""

    clock_s: float
    processor_s: float
    error: float


async def compare(repository: Repository, names: Sequence[str], rows: Array, rounds: int, threads: int) -> Mapping[str, _Took]:
    """Return what a request with uint8 `rows` for the tasks `names` takes on each engine; they take turns, `rounds` times."""
    plan = make_plan(repository, names)
    feed = {plan.inputs[0]: rows}
    engines = {}
    for name, (runtime, precision) in ENGINES.items():
        sessions = SessionStoreOptions(
            threads, runtime=runtime, precision=precision, cache_folder=repository.path.with_name("segments")
        )
        engines[name] = EmbeddedEngine(repository, options=EngineOptions(sessions))
        await engines[name].start()
    try:
        answers = {name: (await engine.infer(plan, feed)).outputs for name, engine in engines.items()}
        clock: dict[str, list[float]] = {name: [] for name in engines}
        processor: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(rounds):
            for name, engine in engines.items():
                started, used = time.perf_counter(), time.process_time()
                await engine.infer(plan, feed)
                clock[name].append(time.perf_counter() - started)
                processor[name].append(time.process_time() - used)
    finally:
        for engine in engines.values():
            await engine.aclose()
    return {
        name: _Took(
            median(clock[name]), median(processor[name]), max(_error(answers[_FIRST][task], found[task]) for task in names)
        )
        for name, found in answers.items()
    }


def _error(right: Array, found: Array) -> float:
    return float(np.abs(np.subtract(right, found)).max() / np.std(right.astype(np.float64)))


def report(network: str, fork: str, tasks: int, took: Mapping[str, _Took]) -> str:
    """Return a table of one network, a line for each engine."""
    first = took[_FIRST]
    lines = [f"{network}, {tasks} tasks at {fork}"]
    lines += [
        f"  {name:18} {one.clock_s * 1e3:7.1f} ms ({first.clock_s / one.clock_s:.2f}x)   processor {one.processor_s * 1e3:7.1f} ms "
        f"({first.processor_s / one.processor_s:.2f}x)   error {one.error:.1e}"
        for name, one in took.items()
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.engines", description=__doc__)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--only", nargs="*", default=[], help="words of networks' names")
    parser.add_argument("--scale", choices=[str(scale) for scale in Scale], default="quick")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        options = Options(Path(scratch), Scale(chosen.scale), only=tuple(chosen.only))
        for network in choose_networks(options):
            fork = network.forks[0]
            family = network_cache(options).family(network, fork, max(chosen.tasks))
            rows = np.random.default_rng(0).integers(0, 256, (1, network.size, network.size, 3), dtype=np.uint8)
            for count in chosen.tasks:
                names = list(family.networks)[:count]
                took = asyncio.run(compare(family.repository, names, rows, chosen.rounds, options.cores))
                print(report(network.name, fork, count, took), flush=True)


if __name__ == "__main__":
    main()
