"""Carries units out, one after the other, until everything is done or the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from benchmarks.harness.machine import describe_machine
from benchmarks.studies.claims.bench import Bench, NotDone
from benchmarks.studies.claims.plan import Estimator, Planned
from benchmarks.studies.claims.unit import Entry, Unit
from benchmarks.studies.claims.units import active, costs, method, search, transfer
from contract.errors import EspalierError
from tuning.network.libraries import versions
from tuning.search.ledger import Trial, read_ledger
from tuning.search.proxy import Proxy

Say = Callable[[str], None]

_MEASURES: Mapping[str, Callable[[Bench, Unit], dict[str, Any]]] = MappingProxyType(
    {
        "costs": costs.measure,
        "search": search.measure,
        "method": method.measure,
        "active": active.measure,
        "transfer": transfer.measure,
    }
)


@dataclass(frozen=True)
class Budget:
    """hours: of the machine, over all runs; None: no end. cores: that share them, a unit taking one. "
    "busy: what is written into entries."""

    hours: float | None = None
    cores: int = 1
    busy: bool = False

    def left_s(self, entries: Iterable[Entry]) -> float:
        """Return the seconds of one core that are left."""
        if self.hours is None:
            return float("inf")
        return self.hours * 3600 * self.cores - sum(entry.core_s for entry in entries)


@dataclass
class Outcome:
    """What a run did. failed: a sentence for each unit that could not be carried out. waiting: units "
    "that another process has begun."""

    done: int = 0
    failed: dict[Unit, str] = field(default_factory=dict)
    spent: bool = False
    waiting: list[Unit] = field(default_factory=list)


def run(bench: Bench, plan: Sequence[Planned], budget: Budget, say: Say) -> Outcome:
    """Carry out what is missing, in order. A unit that is likely to end over the budget is not begun, nor is what comes after it.

    What another process has begun is left to it; what needs that is waited for.
    """
    outcome = Outcome()
    while not outcome.spent:
        outcome.waiting = []
        before = outcome.done
        _pass(bench, [planned.unit for planned in plan if planned.unit not in outcome.failed], budget, outcome, say)
        needy = [unit for unit, sentence in outcome.failed.items() if not sentence]
        for unit in needy:
            del outcome.failed[unit]
        if not needy or outcome.spent:
            break
        if outcome.waiting:
            with bench.ledgers.wait_for(outcome.waiting[0]):
                pass
        elif outcome.done == before:
            outcome.failed |= {unit: f"{unit.words} needs what is not done." for unit in needy}
            break
    return outcome


def _pass(bench: Bench, units: Sequence[Unit], budget: Budget, outcome: Outcome, say: Say) -> None:
    for unit in units:
        with bench.ledgers.claim(unit) as free:
            if bench.ledgers.find(unit) is not None:
                continue
            if not free:
                outcome.waiting.append(unit)
                continue
            entries = bench.ledgers.read().values()
            if budget.left_s(entries) < Estimator(entries).seconds(unit):
                outcome.spent = True
                say(f"The budget of {budget.hours:g} hours is spent before {unit.words}.")
                return
            _try(bench, unit, budget, outcome, say)


def _try(bench: Bench, unit: Unit, budget: Budget, outcome: Outcome, say: Say) -> None:
    try:
        entry = carry_out(bench, unit, busy=budget.busy)
    except NotDone:
        outcome.failed[unit] = ""
    except EspalierError as error:
        outcome.failed[unit] = f"{unit.words} failed: {error}"
        say(outcome.failed[unit])
    else:
        bench.ledgers.add(entry)
        outcome.done += 1
        say(f"{unit.words}: {entry.seconds:.0f} s by the clock, {entry.processor_s:.0f} s of a processor")


def carry_out(bench: Bench, unit: Unit, *, busy: bool = False) -> Entry:
    """Return what the unit gives; trainings of earlier runs that were stopped in it count with what they "
    "took. Raises EspalierError."""
    earlier = _earlier(bench, unit)
    start, processor_start = time.perf_counter(), time.process_time()
    result = _MEASURES[unit.kind](bench, unit)
    seconds = time.perf_counter() - start + sum(one.seconds for one in earlier)
    processor_s = time.process_time() - processor_start + sum(one.processor_s or one.seconds for one in earlier)
    return Entry(unit, result, round(seconds, 2), round(processor_s, 2), busy, describe_machine(), versions())


def _earlier(bench: Bench, unit: Unit) -> Sequence[Trial | Proxy]:
    file = bench.ledgers.scratch(unit, ".jsonl")
    return read_ledger(file).work if file.exists() and file.stat().st_size else ()
