"""A repository's tasks, open in an engine and as separate networks, ready to take turns."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType

from benchmarks.framework.options import Runs
from benchmarks.harness.noise import NoiseWatch
from benchmarks.harness.timing import take_samples
from benchmarks.models.compared import SHARED
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE
from benchmarks.repository.answers import answer_of, differs
from benchmarks.repository.engines import EngineChoice
from benchmarks.repository.networks import Answers, Feed, SeparateNetworks
from benchmarks.repository.other_engines import EngineTimes, EngineWork, measure_engine
from contract.plan import make_plan
from contract.repository import Repository

FEW_BITS = 0.1  # of the largest output: segments of few bits round otherwise when they are fused
SAME = 1e-3  # the same arithmetic in another order


@dataclass(frozen=True)
class Times:
    """Seconds of each run by variant: SHARED, SEPARATE, and SIDE_BY_SIDE where two networks would run at a time.

    wrong: a sentence where separate networks do not answer as the shared request does, else "".
    """

    seconds: Mapping[str, Sequence[float]]
    wrong: str


class RepositoryBench:
    """The tasks `names` of `repository` in the engine of `choice`, and as separate networks. Opened by `with`.

    What the engine keeps, and the separate networks, lie in `folder`. tolerance: how much of the largest output answers may differ by.
    """

    def __init__(
        self, repository: Repository, names: Sequence[str], choice: EngineChoice, folder: Path, threads: int, tolerance: float
    ) -> None:
        self._repository, self._names, self._tolerance = repository, tuple(names), tolerance
        self._folder, self._threads = folder, threads
        self._engine = choice.make(repository, threads, folder / "engine", 1)
        self._runner = asyncio.Runner()
        self._worker = ThreadPoolExecutor(1)  # as the engine: one thread runs everything, one after another

    def __enter__(self) -> RepositoryBench:
        self.networks = SeparateNetworks(self._repository, self._names, self._folder, self._threads)
        self._runner.run(self._engine.start())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._runner.run(self._engine.aclose())
        self._runner.close()
        self._worker.shutdown()
        self.networks.close()
        gc.collect()

    def measure(self, names: Sequence[str], feed: Feed, runs: Runs) -> Times:
        """Compare the answers to one request for the tasks `names`, then time it."""
        return self._runner.run(self._measure(names, feed, runs))

    def measure_other(self, choice: EngineChoice, work: EngineWork, runs: Runs, watch: NoiseWatch) -> EngineTimes:
        """Return what another engine took, in turns with this one. Sessions of the separate networks are closed before.

        Raises EspalierError where it cannot open or run the repository.
        """
        self.networks.forget()
        return measure_engine(choice, self._engine, work, runs, watch, self._runner, self._folder)

    async def _measure(self, names: Sequence[str], feed: Feed, runs: Runs) -> Times:
        plan = make_plan(self._repository, names)
        given = {name: feed[name] for name in plan.inputs}
        separate: dict[str, Callable[[Feed], Answers]] = {SEPARATE: self.networks.one_after_another(names)}
        if side_by_side := self.networks.side_by_side(names):
            separate[SIDE_BY_SIDE] = side_by_side
        run = partial(asyncio.get_running_loop().run_in_executor, self._worker)
        expected = await answer_of(self._engine, plan, given)
        found = {name: await run(ask, feed) for name, ask in separate.items()}
        calls: dict[str, Callable[[], Awaitable[object]]] = {SHARED: partial(self._engine.infer, plan, given)}
        calls |= {name: partial(run, ask, feed) for name, ask in separate.items()}
        wrong = next(filter(None, (differs(name, expected, answers, self._tolerance) for name, answers in found.items())), "")
        return Times(await take_samples(calls, runs.rounds, runs.warmup), wrong)
