"""A repository's tasks, open in every engine and as separate networks, ready to take turns."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np

from benchmarks.framework.options import Runs
from benchmarks.harness.timing import take_samples
from benchmarks.latency.precision.accuracy import Deviation, deviation, mean_deviation
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE
from benchmarks.repository.engines import EngineChoice
from benchmarks.repository.networks import Answers, Feed, SeparateNetworks
from contract.dtypes import Array
from contract.errors import EspalierError
from contract.plan import ExecutionPlan, make_plan
from contract.repository import Repository
from serving.engines.base import Engine

SHARED = "shared"  # by the first engine
FEW_BITS = 0.1  # of the largest output: segments of few bits round otherwise when they are fused
SAME = 1e-3  # the same arithmetic in another order


@dataclass(frozen=True)
class Times:
    """Seconds of each run by variant: SHARED, SEPARATE, SIDE_BY_SIDE where two networks would run at a time, and names of other engines.

    wrong: a sentence where separate networks do not answer as the shared request does, else "".
    """

    seconds: Mapping[str, Sequence[float]]
    wrong: str


class RepositoryBench:
    """The tasks `names` of `repository`. Opened by `with`; what an engine keeps, and the separate networks, lie in `folder`.

    An engine that cannot open the repository is not among `engines` then, and `notes` says why; without the first nothing is measured.
    tolerance: how much of the largest output separate networks may differ by.
    """

    def __init__(
        self,
        repository: Repository,
        names: Sequence[str],
        engines: Sequence[EngineChoice],
        folder: Path,
        threads: int,
        tolerance: float,
    ) -> None:
        self._repository, self._names, self._tolerance = repository, tuple(names), tolerance
        self._choices, self._folder, self._threads = engines, folder, threads
        self._engines: dict[EngineChoice, Engine] = {}
        self.notes: list[str] = []
        self._runner = asyncio.Runner()
        self._worker = ThreadPoolExecutor(1)  # as the engine: one thread runs everything, one after another

    def __enter__(self) -> RepositoryBench:
        self.networks = SeparateNetworks(self._repository, self._names, self._folder, self._threads)
        for place, choice in enumerate(self._choices):
            engine = choice.make(self._repository, self._threads, self._folder / f"engine-{place}")
            try:
                self._runner.run(engine.start())
            except EspalierError as error:
                if not place:
                    raise
                self.notes.append(f"{choice.name} is left out: {error}")
                continue
            self._engines[choice] = engine
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for engine in self._engines.values():
            self._runner.run(engine.aclose())
        self._runner.close()
        self._worker.shutdown()
        self.networks.close()
        self._engines = {}
        gc.collect()

    @property
    def engines(self) -> tuple[EngineChoice, ...]:
        """Return the engines that have opened the repository."""
        return tuple(self._engines)

    def measure(self, names: Sequence[str], feed: Feed, runs: Runs) -> Times:
        """Compare the answers to one request for the tasks `names`, then time it."""
        return self._runner.run(self._measure(names, feed, runs))

    def deviations(self, names: Sequence[str], feeds: Sequence[Feed]) -> dict[EngineChoice, Deviation | None]:
        """Return how far each other engine's answers are from the first's, to requests of one row each; None: no output is a number."""
        return self._runner.run(self._deviations(names, feeds))

    async def _measure(self, names: Sequence[str], feed: Feed, runs: Runs) -> Times:
        plan = make_plan(self._repository, names)
        given = {name: feed[name] for name in plan.inputs}
        first, *others = self._engines
        separate: dict[str, Callable[[Feed], Answers]] = {SEPARATE: self.networks.one_after_another(names)}
        if side_by_side := self.networks.side_by_side(names):
            separate[SIDE_BY_SIDE] = side_by_side
        run = partial(asyncio.get_running_loop().run_in_executor, self._worker)
        expected = await _answer(self._engines[first], plan, given)
        found = {name: await run(ask, feed) for name, ask in separate.items()}
        calls: dict[str, Callable[[], Awaitable[object]]] = {SHARED: partial(self._engines[first].infer, plan, given)}
        calls |= {name: partial(run, ask, feed) for name, ask in separate.items()}
        for other in others:
            await _answer(self._engines[other], plan, given)  # a failed run is no time
            calls[other.name] = partial(self._engines[other].infer, plan, given)
        wrong = next(filter(None, (differs(name, expected, answers, self._tolerance) for name, answers in found.items())), "")
        return Times(await take_samples(calls, runs.rounds, runs.warmup), wrong)

    async def _deviations(self, names: Sequence[str], feeds: Sequence[Feed]) -> dict[EngineChoice, Deviation | None]:
        plan = make_plan(self._repository, names)
        given = [{name: feed[name] for name in plan.inputs} for feed in feeds]
        answers = {choice: [await _answer(engine, plan, rows) for rows in given] for choice, engine in self._engines.items()}
        first, *others = answers
        return {other: _deviation(answers[first], answers[other]) for other in others}


async def _answer(engine: Engine, plan: ExecutionPlan, feed: Feed) -> Answers:
    answer = await engine.infer(plan, feed)
    for error in answer.errors.values():
        raise error
    return dict(answer.outputs)


def differs(variant: str, expected: Answers, answers: Answers, tolerance: float) -> str:
    """Return a sentence where `answers` are others than `expected`, by output."""
    for name, right in expected.items():
        difference = _difference(right, answers[name])
        if not difference <= tolerance:
            return f"{name}: {variant} and shared differ by {difference:.1e} of the largest number; their times do not compare."
    return ""


def _difference(left: Array, right: Array) -> float:
    """Return the largest difference over the largest number; of what is no float, the share of places that differ."""
    if left.shape != right.shape:
        return float("inf")
    if not left.size:
        return 0.0
    if left.dtype.kind != "f":
        return float(np.mean(left != right))
    numbers, others = (np.nan_to_num(values.astype(np.float64)) for values in (left, right))
    return float(np.abs(numbers - others).max() / (np.abs(numbers).max() or 1.0))


def _deviation(expected: Sequence[Answers], found: Sequence[Answers]) -> Deviation | None:
    tasks = []
    for name, first in expected[0].items():
        if first.dtype.kind != "f" or len({answers[name].shape for answers in (*expected, *found)}) > 1:
            continue
        left, right = (
            np.concatenate([answers[name].reshape(len(answers[name]), -1) for answers in one]).astype(np.float32)
            for one in (expected, found)
        )
        if left.size and np.abs(left).max() > 0:
            tasks.append(deviation(left, right))
    return mean_deviation(tasks) if tasks else None
