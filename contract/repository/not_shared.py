"""What tasks of a repository have equal, or nearly equal, weights for and do not share, and why: found when they were exported."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from contract.units import human_bytes, human_macs

BACKBONE = "the backbone"  # among tasks, though it is none
_MOST_TASKS, _MOST_PLACES = 4, 3


@dataclass(frozen=True)
class NotShared:
    """Weights that `tasks` (two and more) each compute with by themselves.

    weight_bytes: of the weights, in one of them. macs: what is computed with them there for one row. places: modules, or nodes where no
    module is known, in order. reason: why, a clause for people. differences: of weights that are nearly equal, by place, the largest
    relative difference; empty: they are equal.
    """

    tasks: tuple[str, ...]
    weight_bytes: int
    macs: int
    places: tuple[str, ...]
    reason: str = ""
    differences: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """Return it as a sentence."""
        size = f"{human_bytes(self.weight_bytes)} of weights"
        cost = f"each computes {human_macs(self.macs)} a row with them by itself"
        who, where = _listed(self.tasks, _MOST_TASKS, "tasks"), _listed(self.places, _MOST_PLACES, "places")
        if not self.differences:
            return f"{who} have {size} in common ({where}), and {cost}: {self.reason}."
        found = [f"{place} {most:.1e}" for place, most in self.differences.items()]
        return (
            f"{who} have {size} that are nearly equal, and {cost}. The largest relative differences: "
            f"{_listed(found, 2 * _MOST_PLACES, 'places')}."
        )


def of_tasks(found: Iterable[NotShared], tasks: Collection[str]) -> tuple[NotShared, ...]:
    """Return what of `found` is still so where there are only `tasks`."""
    left = (replace(one, tasks=tuple(name for name in one.tasks if name in (*tasks, BACKBONE))) for one in found)
    return tuple(one for one in left if len(one.tasks) > 1)


def to_json(found: Sequence[NotShared]) -> str:
    """Return `found` as text; "" for none."""
    return json.dumps([asdict(one) for one in found]) if found else ""


def from_json(text: str) -> tuple[NotShared, ...]:
    """Return what `to_json` wrote. Raises ValueError."""
    try:
        return tuple(_parse(one) for one in json.loads(text or "[]"))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"what is not shared is {text!r}") from error


def _parse(one: Mapping[str, Any]) -> NotShared:
    differences = {str(place): float(most) for place, most in one["differences"].items()}
    tasks, places = (tuple(map(str, one[name])) for name in ("tasks", "places"))
    return NotShared(tasks, int(one["weight_bytes"]), int(one["macs"]), places, str(one["reason"]), differences)


def _listed(names: Sequence[str], most: int, what: str) -> str:
    shown = [*names] if len(names) <= most + 1 else [*names[:most], f"{len(names) - most} more {what}"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
