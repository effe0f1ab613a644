"""Another engine in turns with the first: the same request by its segments, and by the same tasks as separate networks."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.framework.options import Runs
from benchmarks.harness.noise import Measurement, NoiseWatch, measure_quietly
from benchmarks.harness.timing import Timing, summarise, take_samples
from benchmarks.models.accuracy import Deviation
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE, fastest, share_out
from benchmarks.models.whole_networks import whole_networks
from benchmarks.repository.answers import answer_of, deviation_of
from benchmarks.repository.engines import EngineChoice
from benchmarks.repository.networks import Feed
from contract.plan import ExecutionPlan, make_plan
from contract.repository import Repository
from serving.engines.base import Engine

_FIRST, _OWN = "first", "own"  # the shared request by the first engine, and by this one


@dataclass(frozen=True)
class EngineTimes:
    """What `choice` took, in turns with the first engine: seconds of each run of _FIRST, _OWN, SEPARATE and SIDE_BY_SIDE, by its tasks.

    one: the request for one task, most: that for the most. deviation: of its answers from the first's; None: no output is a number.
    """

    choice: EngineChoice
    one: Measurement[Mapping[str, Sequence[float]]]
    most: Measurement[Mapping[str, Sequence[float]]]
    deviation: Deviation | None

    @property
    def faster(self) -> float:
        """Return how many times as long the first engine takes for the most tasks."""
        return _over(self.most.value, _FIRST)

    @property
    def sharing(self) -> float | None:
        """Return the speed-up over separate networks by this engine, as they are faster; None where they were not measured."""
        return _over(self.most.value, fastest(self.most.value, (SEPARATE, SIDE_BY_SIDE))) if SEPARATE in self.most.value else None

    def timing(self, *, most: bool) -> Timing:
        """Return the time of its request for the most tasks, or for one."""
        return summarise((self.most if most else self.one).value[_OWN])


@dataclass(frozen=True)
class EngineWork:
    """What engines are asked: the tasks `names` of `repository`, with so many threads.

    one, most: requests for one and for the most tasks, each with what it brings; feeds: of one row each for the latter, to compare answers.
    """

    repository: Repository
    names: Sequence[str]
    threads: int
    one: tuple[Sequence[str], Feed]
    most: tuple[Sequence[str], Feed]
    feeds: Sequence[Feed]


def measure_engine(
    choice: EngineChoice, first: Engine, work: EngineWork, runs: Runs, watch: NoiseWatch, runner: asyncio.Runner, scratch: Path
) -> EngineTimes:
    """Return what the engine of `choice` took, in turns with `first`, which is open, in `runner`.

    Raises EspalierError where it cannot open or run the repository.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        other = _OtherEngine(choice, work.repository, work.names, Path(folder), work.threads)
        try:
            runner.run(other.start())
            run = partial(_run, runner, other, first, runs)
            one, most = (measure_quietly(partial(run, *asked), watch) for asked in (work.one, work.most))
            return EngineTimes(choice, one, most, runner.run(other.deviation(first, work.most[0], work.feeds)))
        finally:
            runner.run(other.aclose())


class _OtherEngine:
    """The tasks `names` of `repository` in the engine of `choice`: by segments, and as separate networks with two widths of threads.

    start() raises EspalierError where it cannot open them; what has been opened closes with aclose().
    """

    def __init__(self, choice: EngineChoice, repository: Repository, names: Sequence[str], folder: Path, threads: int) -> None:
        self._choice, self._repository, self._threads, self._folder = choice, repository, threads, folder
        exported = [name for name in names if repository.tasks[name].plain is None]
        self._whole = whole_networks(repository, exported, folder / "whole") if exported else None
        self._engines: dict[str, Engine] = {}

    async def start(self) -> None:
        """Open everything."""
        await self._open(_OWN, self._repository, self._threads, 1)
        if self._whole is not None:
            at_a_time, width = share_out(len(self._whole.tasks), self._threads)
            await self._open(SEPARATE, self._whole, self._threads, 1)
            if at_a_time > 1:
                await self._open(SIDE_BY_SIDE, self._whole, width, at_a_time)

    async def aclose(self) -> None:
        """Close what is open."""
        for engine in self._engines.values():
            await engine.aclose()
        self._engines = {}

    async def measure(self, first: Engine, names: Sequence[str], feed: Feed, runs: Runs) -> Mapping[str, Sequence[float]]:
        """Return seconds by variant of one request for the tasks `names`, in turn with the engine `first`."""
        plan = make_plan(self._repository, names)
        given = {name: feed[name] for name in plan.inputs}
        calls: dict[str, Callable[[], Awaitable[object]]] = {_FIRST: partial(first.infer, plan, given)}
        calls[_OWN] = partial(self._engines[_OWN].infer, plan, given)
        await answer_of(self._engines[_OWN], plan, given)  # a failed run is no time
        if self._whole is not None:
            plans = [make_plan(self._whole, [name]) for name in names]
            calls[SEPARATE] = partial(_in_turn, self._engines[SEPARATE], plans, feed)
            if SIDE_BY_SIDE in self._engines and len(names) > 1:
                calls[SIDE_BY_SIDE] = partial(_at_once, self._engines[SIDE_BY_SIDE], plans, feed)
        return await take_samples(calls, runs.rounds, runs.warmup)

    async def deviation(self, first: Engine, names: Sequence[str], feeds: Sequence[Feed]) -> Deviation | None:
        """Return how far its answers to requests of one row are from those of `first`."""
        plan = make_plan(self._repository, names)
        given = [{name: feed[name] for name in plan.inputs} for feed in feeds]
        expected = [await answer_of(first, plan, rows) for rows in given]
        return deviation_of(expected, [await answer_of(self._engines[_OWN], plan, rows) for rows in given])

    async def _open(self, kind: str, repository: Repository, threads: int, at_a_time: int) -> None:
        engine = self._choice.make(repository, threads, self._folder / kind.replace(", ", "-").replace(" ", "-"), at_a_time)
        await engine.start()
        self._engines[kind] = engine


def _run(
    runner: asyncio.Runner, other: _OtherEngine, first: Engine, runs: Runs, names: Sequence[str], feed: Feed
) -> Mapping[str, Sequence[float]]:
    return runner.run(other.measure(first, names, feed, runs))


async def _in_turn(engine: Engine, plans: Sequence[ExecutionPlan], feed: Feed) -> None:
    for plan in plans:
        await _ask(engine, plan, feed)


async def _at_once(engine: Engine, plans: Sequence[ExecutionPlan], feed: Feed) -> None:
    await asyncio.gather(*(_ask(engine, plan, feed) for plan in plans))


async def _ask(engine: Engine, plan: ExecutionPlan, feed: Feed) -> None:
    await engine.infer(plan, {name: feed[name] for name in plan.inputs})


def _over(seconds: Mapping[str, Sequence[float]], other: str) -> float:
    return median(seconds[other]) / median(seconds[_OWN])
