"""Families of networks in other precisions, opened and ready to take turns with those in fp32."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.framework.errors import PrecisionUnavailable
from benchmarks.framework.options import FP32, Options
from benchmarks.latency.precision.kernels import MAKE, tried
from benchmarks.models.accuracy import Deviation, answers, deviation, mean_deviation, pictures
from benchmarks.models.merged import write_merged
from benchmarks.models.separate import SEPARATE, SIDE_BY_SIDE, Feed, SideBySide, open_network
from contract.dtypes import Array
from contract.plan import make_plan
from contract.repository import Repository
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions

Call = Callable[[], Awaitable[object]]
_COMPARED = 2  # tasks whose answers are compared with those in fp32
_SAME = 1e-3  # of the answers' size: the same arithmetic in another order


def variant(kind: str, precision: str) -> str:
    """Return the name of a variant, `kind` being "shared", SEPARATE or SIDE_BY_SIDE."""
    what, comma, how = kind.partition(",")
    return kind if precision == FP32 else f"{what} {precision}{comma}{how}"


@dataclass(frozen=True)
class Precise:
    """A family in another precision. deviation: of its first tasks from fp32."""

    precision: str
    repository: Repository
    deviation: Deviation


class PreciseVariants:
    """The shared trunk and separate networks of one precision. start() opens them, aclose() closes them and deletes the files.

    Separate networks are the tasks' segments joined to one graph each: converted in the same way, with the same ranges, so that both sides
    compute the same numbers; ONNX Runtime removes what stands at the seams.
    """

    def __init__(self, family: Precise, threads: int) -> None:
        self.family = family
        self._threads = threads
        sessions = SessionStoreOptions(threads, provider="cpu", cache_folder=family.repository.path.with_name("segments"))
        self._engine = EmbeddedEngine(family.repository, options=EngineOptions(sessions, learn_rows=True))
        self._files = {name: family.repository.path.with_name(f"{name}.onnx") for name in family.repository.tasks}
        self._sessions: dict[str, Any] = {}
        self._side_by_side = SideBySide(self._files, threads)

    async def start(self) -> None:
        """Open the engine, and a session for each separate network."""
        await self._engine.start()
        repository = self.family.repository
        for name, file in self._files.items():
            self._sessions[name] = open_network(write_merged(repository, [name], file), self._threads)

    async def aclose(self) -> None:
        """Close what is open, and delete the folder that the repository lies in."""
        await self._engine.aclose()
        self._sessions = {}
        self._side_by_side.close()
        shutil.rmtree(self.family.repository.path.parent)

    def calls(self, names: Sequence[str], rows: Array, worker: Executor) -> Mapping[str, Call]:
        """Return what answers uint8 `rows` for the tasks `names`: shared by the engine, separate in the thread of `worker`.

        Separate networks side by side are among them where two or more would run at a time.
        """
        plan, feed = self._request(names, rows)
        precision, run = self.family.precision, partial(asyncio.get_running_loop().run_in_executor, worker)
        calls: dict[str, Call] = {variant("shared", precision): lambda: self._engine.infer(plan, feed)}
        for kind, separate in self._separate(names).items():
            calls[variant(kind, precision)] = partial(run, separate, feed)
        return calls

    async def difference(self, names: Sequence[str], rows: Array) -> str:
        """Return a sentence where shared and separate differ by more than this precision does from fp32, else ""."""
        plan, feed = self._request(names, rows)
        shared = (await self._engine.infer(plan, feed)).outputs
        found = [pair for run in self._separate(names).values() for pair in zip(names, run(feed), strict=True)]
        most = max(deviation(separate, shared[name]).of_size for name, separate in found)
        if most <= max(_SAME, self.family.deviation.of_size):
            return ""
        return f"In {self.family.precision}, separate and the shared trunk differ by {most:.1e} of the outputs; their times do not compare."

    def _request(self, names: Sequence[str], rows: Array) -> tuple[Any, Mapping[str, Array]]:
        plan = make_plan(self.family.repository, names)
        return plan, {plan.inputs[0]: rows}

    def _separate(self, names: Sequence[str]) -> Mapping[str, Callable[[Feed], list[Array]]]:
        """Return the ways to run the separate networks."""
        side_by_side = self._side_by_side.open(names)
        in_turn: dict[str, Callable[[Feed], list[Array]]] = {SEPARATE: partial(self._run_separate, names)}
        return in_turn if side_by_side is None else {**in_turn, SIDE_BY_SIDE: side_by_side}

    def _run_separate(self, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        return [self._sessions[name].run(None, dict(feed))[0] for name in names]


def make_precise(repository: Repository, precisions: Iterable[str], options: Options) -> tuple[list[Precise], list[str]]:
    """Return `repository` in each of `precisions` but fp32, in folders under `options.scratch`; and a sentence for each that cannot be."""
    made: list[Precise] = []
    refused: list[str] = []
    for precision in precisions:
        if precision != FP32:
            options.say(f"Converting {len(repository.tasks)} tasks to {precision}")
            try:
                made.append(_make(repository, precision, options))
            except PrecisionUnavailable as error:
                refused.append(str(error))
    return made, refused


def _make(repository: Repository, precision: str, options: Options) -> Precise:
    names = list(repository.tasks)[:_COMPARED]
    size = repository.tasks[names[0]].inputs[0].shape[0]
    folder = Path(tempfile.mkdtemp(dir=options.scratch, prefix=f"{precision}-"))
    try:
        with tried(precision):
            rows = pictures(options.pick(16, 8, 4), size, seed=1)
            made = MAKE[precision](repository, rows, folder / "repository")
            rows = pictures(options.pick(64, 32, 8), size, seed=2)
            expected, found = (answers(one, names, rows, options.cores) for one in (repository, made))
    except PrecisionUnavailable:
        shutil.rmtree(folder)
        raise
    return Precise(precision, made, mean_deviation([deviation(expected[name], found[name]) for name in names]))
