"""A family in all variants, opened and ready to take turns."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.framework.options import Options, Runs
from benchmarks.harness.noise import Measurement, measure_quietly
from benchmarks.harness.timing import take_samples
from benchmarks.models.blocks import BlockFamily, run_apart, run_together
from benchmarks.models.merged import write_merged
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE, SideBySide, open_network
from benchmarks.models.synthetic import Family
from contract.dtypes import Array
from contract.plan import make_plan
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions

SHARED, ONE_GRAPH, BY_HAND, TORCH = "shared", "one graph", "torch, by hand", "torch"
VARIANTS = (SHARED, SEPARATE, SIDE_BY_SIDE, ONE_GRAPH, BY_HAND, TORCH)
_PAUSE_S = 0.005  # OpenMP's threads spin for about a millisecond after torch
_TOLERANCE = 1e-3  # of the largest output: the same arithmetic in another order

_Run = Callable[[], Sequence[Array]]


@dataclass(frozen=True)
class Times:
    """Seconds of each run by variant. wrong: a sentence where a variant does not answer as the separate networks do, else ""."""

    seconds: Mapping[str, Sequence[float]]
    wrong: str


def measure_family(made: BlockFamily, family: Family, options: Options, runs: Runs) -> Measurement[Times]:
    """Return the times of one request for all tasks of `family`, which `made` was exported to, in every variant in turn."""
    torch.set_num_threads(options.cores)
    feed = {name: value.numpy() for name, value in made.inputs.items()}
    names = [*family.networks]
    with (
        closing(SideBySide(family.networks, options.cores)) as several,
        tempfile.TemporaryDirectory(dir=options.scratch) as folder,
    ):
        graph = open_network(write_merged(family.repository, names, Path(folder) / "merged.onnx"), options.cores)
        sessions = [open_network(file, options.cores) for file in family.networks.values()]
        networks = [made.networks[name].to(memory_format=torch.channels_last) for name in names]
        variants: dict[str, _Run] = {
            SEPARATE: lambda: [session.run(None, feed)[0] for session in sessions],
            ONE_GRAPH: lambda: graph.run(names, feed),
            BY_HAND: partial(run_together, networks, [*feed.values()]),
            TORCH: partial(run_apart, networks, [*feed.values()]),
        }
        if side_by_side := several.open(names):
            variants[SIDE_BY_SIDE] = partial(side_by_side, feed)
        store = SessionStoreOptions(options.cores, provider="cpu", cache_folder=Path(folder) / "segments")
        engine = EmbeddedEngine(family.repository, options=EngineOptions(store, learn_rows=True))
        with asyncio.Runner() as runner, ThreadPoolExecutor(1) as worker:
            runner.run(engine.start())
            try:
                once = partial(_measure, engine, family, feed, variants, worker, runs)
                return measure_quietly(lambda: runner.run(once()), options.watch())
            finally:
                runner.run(engine.aclose())


async def _measure(
    engine: EmbeddedEngine,
    family: Family,
    feed: Mapping[str, Array],
    variants: Mapping[str, _Run],
    worker: ThreadPoolExecutor,
    runs: Runs,
) -> Times:
    loop, names = asyncio.get_running_loop(), [*family.networks]
    plan = make_plan(family.repository, names)
    given = {name: feed[name] for name in plan.inputs}
    answer = await engine.infer(plan, given)
    expected = [answer.outputs[name] for name in names]
    answers = {name: await loop.run_in_executor(worker, run) for name, run in variants.items()}
    calls = {name: partial(loop.run_in_executor, worker, run) for name, run in variants.items()}
    seconds = await take_samples({SHARED: lambda: engine.infer(plan, given), **calls}, runs.rounds, runs.warmup, _PAUSE_S)
    return Times(seconds, next(filter(None, (_difference(name, expected, found) for name, found in answers.items())), ""))


def _difference(variant: str, expected: Sequence[Array], answers: Sequence[Array]) -> str:
    """Return a sentence where `answers` are others than `expected`."""
    for left, right in zip(expected, answers, strict=True):
        difference = float(np.abs(np.subtract(left, right)).max() / np.abs(left).max())
        if not difference <= _TOLERANCE:
            return f"{variant} and shared differ by {difference:.1e} of the largest output; their times do not compare."
    return ""
