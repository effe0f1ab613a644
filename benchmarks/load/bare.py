"""What the engine answers without a server around it, at its best: the measure of what a server costs in throughput."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.closed_loop import ClosedLoop, closed_loop
from benchmarks.harness.inputs import random_rows
from contract.plan import make_plan
from contract.repository import ALL_TASKS, Repository
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions

_CLEARLY = 0.05  # medians of a few turns differ by some per cent without any cause


@dataclass(frozen=True)
class EngineSetting:
    """instances: runs at a time, None: as the engine finds best. threads: of each, or of all. max_batch_rows: of a run, None: likewise."""

    instances: int | None
    threads: int
    max_batch_rows: int | None = None

    def engine(self, cache: Path) -> EngineOptions:
        """Return it for an engine that keeps optimised segments in `cache`."""
        sessions = SessionStoreOptions(self.threads, provider="cpu", cache_folder=cache)
        return EngineOptions(sessions, self.instances, max_batch_rows=self.max_batch_rows, learn_rows=True)

    @property
    def server(self) -> tuple[str, ...]:
        """Return it as options of `espalier serve`."""
        rows = ("--max-batch-rows", str(self.max_batch_rows)) if self.max_batch_rows else ()
        instances = ("--instances", str(self.instances)) if self.instances else ()
        return (*instances, "--threads", str(self.threads), *rows)

    def __str__(self) -> str:
        rows = "rows as found best" if self.max_batch_rows is None else f"at most {self.max_batch_rows} rows a run"
        return f"{f'{self.instances} x ' if self.instances else ''}{self.threads} threads, {rows}"


def settings(cores: int, rows: Sequence[int | None]) -> tuple[EngineSetting, ...]:
    """Return the engine's own way to use `cores` cores and all even ones, with each of `rows` (see Setting.max_batch_rows)."""
    divisors = [number for number in range(1, cores + 1) if cores % number == 0]
    ways = [(None, cores), *((instances, cores // instances) for instances in divisors)]
    return tuple(EngineSetting(instances, threads, most) for instances, threads in ways for most in rows)


def choose_setting(per_s: Mapping[EngineSetting, float]) -> EngineSetting:
    """Return which of the settings a server is to have: the one with most answers a second, but the first unless it is clearly behind.

    The first is the engine's own way, which users have, and which has all threads for a lone client.
    """
    own = next(iter(per_s))
    best = max(per_s, key=per_s.__getitem__)
    return own if per_s[own] >= (1 - _CLEARLY) * per_s[best] else best


class BareEngine:
    """An engine of this process with some callers. Opened by `with`. cache: a folder for optimised segments."""

    def __init__(self, repository: Repository, setting: EngineSetting, cache: Path) -> None:
        self._repository = repository
        self._engine = EmbeddedEngine(repository, options=setting.engine(cache))
        self._runner = asyncio.Runner()

    def __enter__(self) -> BareEngine:
        self._runner.run(self._engine.start())
        return self

    def __exit__(self, *exception: object) -> None:
        self._runner.run(self._engine.aclose())
        self._runner.close()

    def per_s(self, models: Sequence[str], callers: int, seconds: float) -> float:
        """Return the answers per second to `callers` callers that ask for `models` in turn, a row each, one request after the other."""
        return self.loop(models, callers, seconds).per_s

    def loop(self, models: Sequence[str], callers: int, seconds: float) -> ClosedLoop:
        """Return all that came of it."""
        return self._runner.run(self._loop(models, callers, seconds))

    async def _loop(self, models: Sequence[str], callers: int, seconds: float) -> ClosedLoop:
        tasks = list(self._repository.tasks)
        plans = {model: make_plan(self._repository, tasks if model == ALL_TASKS else [model]) for model in set(models)}
        rows = random_rows(self._repository.tasks[tasks[0]])
        inputs = {name: next(iter(rows.values())) for plan in plans.values() for name in plan.inputs}
        turns = itertools.cycle(models)

        async def ask() -> None:
            plan = plans[next(turns)]
            await self._engine.infer(plan, {name: inputs[name] for name in plan.inputs})

        return await closed_loop([ask] * callers, seconds)
