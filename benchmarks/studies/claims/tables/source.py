"""What tables read: entries of one study, by what they are about."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from benchmarks.studies.claims.packed import unpack
from benchmarks.studies.claims.statistics import Paired, spread
from benchmarks.studies.claims.unit import Entry, Settings, Unit
from tuning.search.ledger import LedgerContents
from tuning.search.score import Subset


@dataclass(frozen=True)
class Searched:
    """A search that was done. finals: accuracies on the test pictures."""

    unit: Unit
    contents: LedgerContents
    finals: dict[Subset, float]


class Source:
    """Entries of `settings`; those of other settings have other keys, and are not looked at."""

    def __init__(self, entries: Iterable[Entry], settings: Settings) -> None:
        self.settings = settings
        self.entries = {entry.unit: entry for entry in entries}

    @cached_property
    def searches(self) -> tuple[Searched, ...]:
        """All searches, with what serving their subsets costs where that was priced."""
        priced = self.entries.get(Unit("costs"))
        shares = dict(zip(priced.result["blocks"], priced.result["shares"], strict=True)) if priced else None
        head = float(priced.result["head"]) if priced else 0.0
        return tuple(_searched(entry, shares, head) for entry in self.of("search"))

    def of(self, kind: str) -> list[Entry]:
        """Return the entries of a kind, by task, images, seed and method."""
        found = [entry for entry in self.entries.values() if entry.unit.kind == kind]
        return sorted(found, key=lambda one: (one.unit.task, one.unit.images, one.unit.seed, one.unit.method, one.unit.beta))

    def searched(self, task: str, images: int) -> list[Searched]:
        """Return the searches of a task by seed."""
        return [one for one in self.searches if (one.unit.task, one.unit.images) == (task, images)]

    def tested(self, task: str, method: str, images: int) -> dict[int, float]:
        """Return the accuracy on the test pictures by seed."""
        units = [
            unit for unit in self.entries if (unit.kind, unit.task, unit.method, unit.images) == ("method", task, method, images)
        ]
        return {unit.seed: float(self.entries[unit].result["test"]) for unit in sorted(units, key=lambda unit: unit.seed)}


def _searched(entry: Entry, shares: dict[str, float] | None, head: float) -> Searched:
    finals = {tuple(final["subset"]): float(final["test"]) for final in entry.result["finals"]}
    return Searched(entry.unit, unpack(entry.result["ledger"], shares, head), finals)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, or that there is nothing to show."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return "Not run yet.\n"
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines]) + "\n"


def mean_words(values: Sequence[float]) -> str:
    """Return percent: "60.7 ± 1.2 (3)", the number of seeds in brackets; "" of none."""
    if not values:
        return ""
    mean, deviation = spread(values)
    return f"{100 * mean:.1f} ± {100 * deviation:.1f} ({len(values)})" if len(values) > 1 else f"{100 * mean:.1f} (1)"


def difference_words(found: Paired) -> str:
    """Return points: "+1.2 [-0.3, 2.7]", the interval being of 95 % by Student's t."""
    interval = "" if math.isnan(found.low) else f" [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{100 * found.mean:+.1f}{interval}"


def p_words(p: float) -> str:
    """Return a p value, or that there is none."""
    return "-" if math.isnan(p) else f"{p:.3f}"
