"""The variants of the latency benchmark, opened and ready to take turns."""

from __future__ import annotations

import asyncio
import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from types import TracebackType

import numpy as np
import torch
from torch import nn

from benchmarks.framework.options import Options, Runs
from benchmarks.harness.noise import NoiseWatch
from benchmarks.harness.timing import take_samples
from benchmarks.latency.precision.variants import Call, Precise, PreciseVariants, make_precise
from benchmarks.latency.torch_variants import NotCompiled, SharedTrunk, compile_all, open_rivals, run_all, write_by_hand
from benchmarks.models.accuracy import pictures
from benchmarks.models.families import TimmNetwork, network_cache
from benchmarks.models.merged import write_merged
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE, SideBySide, open_network
from benchmarks.models.some_tasks import only_tasks
from benchmarks.models.synthetic import Family
from benchmarks.repository.engines import EngineChoice
from benchmarks.repository.other_engines import EngineTimes, EngineWork, measure_engine
from contract.dtypes import Array
from contract.plan import make_plan
from contract.repository import Repository
from serving.engines.base import Answer
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions

BY_HAND = "torch, shared trunk"
ONE_TASK = "one task"  # a request to the shared trunk for the first task alone
_PICTURES = 8  # on which answers of engines are compared
_PAUSE_S = 0.005  # OpenMP's threads spin for about a millisecond after torch
_TOLERANCE = 1e-3  # of the largest output: the same arithmetic in another order

_Variant = Callable[[], Sequence[Array]]


@dataclass(frozen=True)
class Times:
    """Seconds of each run by variant. trunk_s, branch_s: medians of what a request for one task spends in each.

    wrong: a sentence where a variant does not answer as the separate networks do, else "".
    """

    seconds: Mapping[str, Sequence[float]]
    trunk_s: float
    branch_s: float
    wrong: str


class LatencyBench:
    """A family in all variants. Opened by `with`; the largest number of tasks is open all the time, but for the single graph."""

    def __init__(
        self,
        family: Family,
        rows: Array,
        threads: int,
        eager: Sequence[nn.Module],
        compiled: Sequence[nn.Module],
        by_hand: SharedTrunk,
        notes: Sequence[str],
        precise: Sequence[Precise] = (),
    ) -> None:
        self.precise = tuple(precise)
        self.repository: Repository = family.repository
        self.names = list(family.networks)
        self.notes = tuple(notes)
        self._rows, self._threads = rows, threads
        self._files = family.networks
        self._side_by_side = SideBySide(self._files, threads)
        self._torch = {"torch": eager, "compiled": compiled}
        self._by_hand = by_hand
        self._trunk = _trunk(self.repository)
        self._others = [PreciseVariants(family, threads) for family in precise]
        self._runner = asyncio.Runner()
        self._worker = ThreadPoolExecutor(1)  # as the engine: one thread runs everything, one after another
        sessions = SessionStoreOptions(threads, provider="cpu", cache_folder=family.repository.path.with_name("segments"))
        self._engine = EmbeddedEngine(self.repository, options=EngineOptions(sessions, learn_rows=True))

    def __enter__(self) -> LatencyBench:
        self._runner.run(self._engine.start())
        self._sessions = {name: open_network(file, self._threads) for name, file in self._files.items()}
        for other in self._others:
            self._runner.run(other.start())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._runner.run(self._engine.aclose())
        for other in self._others:
            self._runner.run(other.aclose())
        self._runner.close()
        self._worker.shutdown()
        self._side_by_side.close()
        del self._sessions
        gc.collect()

    def measure(self, names: Sequence[str], rounds: int, warmup: int) -> Times:
        """Compare the variants' answers for the tasks `names`, then time them."""
        with tempfile.TemporaryDirectory(dir=self.repository.path.parent.parent) as folder:
            graph = open_network(write_merged(self.repository, names, Path(folder) / "merged.onnx"), self._threads)
            return self._runner.run(self._measure(names, self._variants(names, partial(graph.run, list(names))), rounds, warmup))

    def measure_engine(self, choice: EngineChoice, names: Sequence[str], runs: Runs, watch: NoiseWatch) -> EngineTimes:
        """Return what another engine takes for the tasks `names`, in turns with the shared request."""
        self._side_by_side.forget()
        source = self.repository.tasks[names[0]].inputs[0].name
        images = [{source: row[None]} for row in pictures(_PICTURES, self._rows.shape[1], seed=2)]
        one, most = ((asked, {source: self._rows}) for asked in (names[:1], names))
        work = EngineWork(only_tasks(self.repository, names), names, self._threads, one, most, images)
        return measure_engine(choice, self._engine, work, runs, watch, self._runner, self.repository.path.parent.parent)

    def _variants(self, names: Sequence[str], run_graph: Callable[[dict[str, Array]], Sequence[Array]]) -> dict[str, _Variant]:
        sessions = [self._sessions[name] for name in names]
        source = sessions[0].get_inputs()[0].name
        image = {self.repository.tasks[names[0]].inputs[0].name: self._rows}
        variants: dict[str, _Variant] = {
            SEPARATE: lambda: [session.run(None, {source: self._rows})[0] for session in sessions],
            "one graph": lambda: run_graph(image),
            BY_HAND: partial(self._by_hand.run, len(names), self._rows),
        }
        side_by_side = self._side_by_side.open(names)
        if side_by_side is not None:
            variants[SIDE_BY_SIDE] = partial(side_by_side, {source: self._rows})
        for name, networks in self._torch.items():
            if networks:
                variants[name] = partial(run_all, networks[: len(names)], self._rows)
        return variants

    async def _measure(self, names: Sequence[str], variants: Mapping[str, _Variant], rounds: int, warmup: int) -> Times:
        loop = asyncio.get_running_loop()
        plans = {"shared": make_plan(self.repository, names), ONE_TASK: make_plan(self.repository, names[:1])}
        image = {plans["shared"].inputs[0]: self._rows}
        alone: list[Answer] = []

        async def one_task() -> None:
            alone.append(await self._engine.infer(plans[ONE_TASK], image))

        answer = await self._engine.infer(plans["shared"], image)
        answers = {name: await loop.run_in_executor(self._worker, run) for name, run in variants.items()}
        wrong = _differences([answer.outputs[name] for name in names], answers)
        calls: dict[str, Call] = {name: partial(loop.run_in_executor, self._worker, run) for name, run in variants.items()}
        shared = {"shared": lambda: self._engine.infer(plans["shared"], image), ONE_TASK: one_task}
        for other in self._others:
            calls |= other.calls(names, self._rows, self._worker)
            wrong = wrong or await other.difference(names, self._rows)
        seconds = await take_samples({**shared, **calls}, rounds, warmup, _PAUSE_S)
        return Times(seconds, *self._parts(alone[-rounds:]), wrong)

    def _parts(self, answers: Sequence[Answer]) -> tuple[float, float]:
        """Return the median seconds of the trunk and of the branch in requests for one task."""
        trunk = [sum(run.seconds for run in answer.runs if run.segment in self._trunk) for answer in answers]
        whole = [sum(run.seconds for run in answer.runs) for answer in answers]
        return median(trunk), median(all_ - part for all_, part in zip(whole, trunk, strict=True))


def open_bench(network: TimmNetwork, fork: str, tasks: int, options: Options, *, with_torch: bool) -> LatencyBench:
    """Return the family of these tasks in all variants; whole networks in torch only `with_torch`, and compiled unless it is quick."""
    rows = np.random.default_rng(0).integers(0, 256, (1, network.size, network.size, 3), dtype=np.uint8)
    family = network_cache(options).family(network, fork, tasks)
    eager, compiled, notes = [], [], []
    torch.set_num_threads(options.cores)
    if with_torch:
        eager = open_rivals(network_cache(options).backbone(network), fork, tasks)
        if options.pick(True, False, False):
            try:
                compiled = compile_all(eager, rows)
            except NotCompiled as error:
                notes.append(str(error))
        else:
            notes.append("torch.compile was left out: compiling takes a minute or more for each network.")
    by_hand = write_by_hand(network_cache(options).backbone(network), fork, tasks)
    precise, refused = make_precise(family.repository, options.precisions, options)
    return LatencyBench(family, rows, options.cores, eager, compiled, by_hand, [*notes, *refused], precise)


def _trunk(repository: Repository) -> frozenset[str]:
    """Return the segments that every task runs on the same input."""
    applied = [{(step.segment, step.inputs) for step in task.steps} for task in repository.tasks.values()]
    return frozenset(segment for segment, _ in set.intersection(*applied))


def _differences(expected: Sequence[Array], answers: Mapping[str, Sequence[Array]]) -> str:
    for name, outputs in answers.items():
        for left, right in zip(expected, outputs, strict=True):
            difference = float(np.abs(np.subtract(left, right)).max() / np.abs(left).max())
            if not difference <= _TOLERANCE:
                return (
                    f"{name} and the shared trunk differ by {difference:.1e} of the largest output; their times do not compare."
                )
    return ""
