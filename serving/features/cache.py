"""Answers plans with features that earlier requests have left, or that one under way is about to, and keeps what it makes for others."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from contract.dtypes import Array
from contract.plan import ExecutionPlan
from contract.repository.model import Repository
from serving.engines.base import Answer, Call
from serving.features.fingerprints import Fingerprints
from serving.features.flights import Flights
from serving.features.kept_tensors import ENTRY_BYTES, KeptTensors
from serving.features.taps import PlanTaps, Remainder, Tap, worth_keeping
from serving.process.threads import to_thread

_MOST_PLANS = 1024
_MOST_WAITS = 3  # for others that end without having computed it

Run = Callable[[ExecutionPlan, Mapping[str, Array], Call], Awaitable[Answer]]


@dataclass(frozen=True)
class FeatureStatistics:
    """What a feature cache has done, and has.

    Of requests that share something with other tasks: hits took what was kept, waits what another one under way computed, misses computed
    it. evictions: of tensors that made room. tensors, bytes, limit_bytes: of now.
    """

    hits: int = 0
    waits: int = 0
    misses: int = 0
    evictions: int = 0
    tensors: int = 0
    bytes: int = 0
    limit_bytes: int = 0


class FeatureCache:
    """Keeps tensors that tasks of `repository` share in at most `limit_bytes`. To be used from one event loop.

    The unit is a request: its rows together are the key, so that what comes back was computed in the company of the same rows.
    """

    def __init__(self, repository: Repository, limit_bytes: int) -> None:
        self._kept = KeptTensors(limit_bytes)
        self._flights = Flights()
        self._fingerprints = Fingerprints()
        self._worth = worth_keeping(repository)
        self._segments = {*repository.segments}
        self._plans: dict[int, PlanTaps] = {}  # by the identity of the plan, which is held
        self._hits = self._waits = self._misses = 0

    def statistics(self) -> FeatureStatistics:
        """Return what it has done so far. Callable from any thread."""
        kept = self._kept
        return FeatureStatistics(self._hits, self._waits, self._misses, kept.evictions, len(kept), kept.bytes, kept.limit_bytes)

    async def follow(self, repository: Repository) -> None:
        """Keep from now on what the tasks of `repository` share."""
        self._worth = await to_thread(worth_keeping, repository)
        self._segments.update(repository.segments)
        self._plans.clear()

    def drop(self, segments: Collection[str]) -> None:
        """Let go of what these have made; nobody will ask for them."""
        self._segments.difference_update(segments)
        self._kept.drop(segments)

    def clear(self) -> None:
        """Let go of everything."""
        self._kept.clear()

    async def infer(self, run: Run, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call) -> Answer:
        """Return what `plan` gives on `inputs`, of which `run` computes what is not there. Raises what `run` does, DeadlineExceeded."""
        taps, rows = self._of(plan), len(next(iter(inputs.values())))
        too_many = plan.coupled and 0 < call.rows_per_run < rows
        prints = None if too_many or not taps.taps else await self._fingerprints.of(inputs, taps.inputs)
        if prints is None:
            return await run(plan, inputs, call)
        keys = {name: b"".join((tap.address, *(prints[given] for given in tap.inputs))) for name, tap in taps.taps.items()}
        fitting = frozenset(name for name, tap in taps.taps.items() if self._fits(tap, rows))
        started, awaited = time.perf_counter(), dict[bytes, Array]()
        for _ in range(_MOST_WAITS):
            there, left = self._look(taps, keys, awaited, fitting)
            landed = await self._flights.landed([keys[name] for name in left.made.values()], call.deadline)
            if landed is None:
                break
            awaited.update(landed)
        waited_s = time.perf_counter() - started
        there, left = self._look(taps, keys, awaited, fitting)
        answer = await self._rest(run, taps, left, keys, {**inputs, **there}, call)
        self._count(left, [keys[name] for name in left.given], awaited)
        return replace(answer, queue_seconds=answer.queue_seconds + waited_s, cached=left.skipped)

    def _look(
        self, taps: PlanTaps, keys: Mapping[str, bytes], awaited: Mapping[bytes, Array], fitting: frozenset[str]
    ) -> tuple[Mapping[str, Array], Remainder]:
        """Return the taps that are there, by name, and what is left to run."""
        found = {name: awaited.get(key, self._kept.get(key)) for name, key in keys.items()}
        there = {name: values for name, values in found.items() if values is not None}
        return there, taps.remainder(there.keys(), fitting)

    async def _rest(
        self,
        run: Run,
        taps: PlanTaps,
        left: Remainder,
        keys: Mapping[str, bytes],
        tensors: Mapping[str, Array],
        call: Call,
    ) -> Answer:
        """Run what is left, keep what that makes, and put the answer together."""
        answered = {output: np.array(tensors[name]) for output, name in left.answered.items()}
        if not left.plan.steps:
            return Answer(answered, ())
        with self._flights.begin(keys[name] for name in left.made.values()) as flight:
            answer = await run(left.plan, tensors, call)
            shown = [answer.outputs[output] for output in taps.plan.outputs if output in answer.outputs]
            made = {name: _own(answer.outputs[extra], shown) for extra, name in left.made.items() if extra in answer.outputs}
            flight.land({keys[name]: values for name, values in made.items() if keys[name] in flight.keys})
        for name, values in made.items():
            if taps.taps[name].segments <= self._segments:
                self._kept.put(keys[name], values, taps.taps[name].segments)
        found = {**answer.outputs, **answered}
        outputs = {output: found[output] for output in taps.plan.outputs if output in found}
        errors = {output: answer.errors[output] for output in taps.plan.outputs if output in answer.errors}
        return replace(answer, outputs=outputs, errors=errors)

    def _count(self, left: Remainder, given: Collection[bytes], awaited: Mapping[bytes, Array]) -> None:
        self._kept.used(given)
        if any(key in awaited for key in given):
            self._waits += 1
        elif left.given:
            self._hits += 1
        else:
            self._misses += 1

    def _fits(self, tap: Tap, rows: int) -> bool:
        return tap.row_bytes * rows + ENTRY_BYTES <= self._kept.limit_bytes

    def _of(self, plan: ExecutionPlan) -> PlanTaps:
        known = self._plans.get(id(plan))
        if known is None or known.plan is not plan:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            known = self._plans[id(plan)] = PlanTaps(plan, self._worth)
        return known


def _own(values: Array, shown: Iterable[Array]) -> Array:
    """Return `values` as an array that nobody else writes to, and that holds no more memory than it says. shown: what is answered."""
    base = values.base
    is_part = isinstance(base, np.ndarray) and base.nbytes > values.nbytes
    if is_part or any(np.may_share_memory(values, other) for other in shown):
        values = values.copy()
    values.flags.writeable = False
    return values
