"""Which units there are, the most valuable first, and what they may take.

Estimates are means of what was measured, by what most decides about it: the kind of unit, its method and its size; where nothing was
measured, guesses.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from benchmarks.studies.claims.unit import METHODS, Entry, Settings, Unit

_FIRST_TASKS = ("category", "rotation")  # five seeds at 100 pictures
MAIN_TASKS = ("category", "vendor", "rotation", "texture")
_MORE_TASKS = ("skin", "places", "animals")
IMAGES = 100
SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTION = "gaussian_noise"
_BETAS = (3.0, 10.0)
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "category": "labels: nine categories of Google's emoji",
        "vendor": "vendor shift: the same, chosen and tested on Twitter's drawings",
        "rotation": "rotation: by how many quarters an emoji is turned",
        "texture": "texture: which of nine providers an icon is of, its style",
        "skin": "colour: the tone of an emoji's skin",
        "places": "labels: five kinds of places",
        "animals": "labels: six kinds of animals and plants",
        "twitter": "labels: nine categories of Twitter's emoji",
    }
)
_SIMPLE = ("subtuning", "linear probe", "full finetuning")


@dataclass(frozen=True)
class Planned:
    """A unit, the section of the study that wants it first, and its place in the order."""

    section: str
    unit: Unit


def make_plan(settings: Settings) -> tuple[Planned, ...]:
    """Return all units once, in order. What a unit needs comes before it."""
    found: dict[Unit, str] = {}
    for section, units in _sections(settings):
        for unit in units:
            found.setdefault(unit, section)
    return tuple(Planned(section, unit) for unit, section in found.items())


def _sections(settings: Settings) -> Iterator[tuple[str, Iterable[Unit]]]:
    most = settings.max_blocks

    def searches(tasks: Iterable[str], images: int, seeds: Iterable[int], blocks: int = most) -> list[Unit]:
        return [Unit("search", task, images, seed, blocks=blocks) for task in tasks for seed in seeds]

    def methods(names: Iterable[str], tasks: Iterable[str], seeds: Iterable[int], blocks: int = most) -> list[Unit]:
        return [_method(name, task, seed, blocks) for task in tasks for seed in seeds for name in names]

    first, rest = range(3), range(3, 5)
    others = [name for name in METHODS if name not in _SIMPLE]
    noisy = [f"category {CORRUPTION}:{severity}" for severity in SEVERITIES]
    yield "costs", [Unit("costs")]
    yield "profiles", searches(MAIN_TASKS, IMAGES, first)
    yield "methods", methods(_SIMPLE, MAIN_TASKS, first)
    yield "methods", methods(others, MAIN_TASKS, first)
    yield "profiles", searches(_FIRST_TASKS, IMAGES, rest)
    yield "methods", methods(METHODS, _FIRST_TASKS, rest)
    yield "growth", searches(MAIN_TASKS, IMAGES // 2, first)
    yield "corruption", searches(noisy, IMAGES, first, 1)
    yield "corruption", methods(_SIMPLE, noisy, first, 1)
    yield "transfer", _transfers(first)
    yield "growth", searches(MAIN_TASKS, 2 * IMAGES, first)
    yield "active", [Unit("active", task, IMAGES // 2, seed, blocks=most) for task in _FIRST_TASKS for seed in first]
    yield "ranking", searches(_MORE_TASKS, IMAGES // 2, first)
    yield "ranking", searches(_MORE_TASKS, IMAGES, first)
    yield "ranking", searches(("skin",), 2 * IMAGES, first)


def _method(name: str, task: str, seed: int, blocks: int) -> Unit:
    """Return the unit; only what takes its blocks from a search says how many that search has."""
    return Unit("method", task, IMAGES, seed, name, blocks if "subtuning" in name else 0)


def _transfers(seeds: Iterable[int]) -> list[Unit]:
    ways = [("plain", 0.0), *((method, beta) for method in ("aft", "distillation") for beta in _BETAS)]
    return [
        Unit("transfer", task, images, seed, method, beta=beta)
        for task, images in (("category", 2 * IMAGES), ("texture", 2 * IMAGES))
        for seed in seeds
        for method, beta in ways
    ]


# Seconds of one core for a unit with 100 pictures: from single trainings of each kind that were timed, times how many a unit has.
_GUESSES: Mapping[str, float] = MappingProxyType(
    {
        "costs": 45.0,
        "search": 750.0,
        "subtuning": 40.0,
        "subtuning, one block": 40.0,
        "siamese subtuning": 60.0,
        "linear probe": 3.0,
        "full finetuning": 220.0,
        "lp-ft": 115.0,
        "surgical": 320.0,
        "lora": 340.0,
        "active": 120.0,
        "transfer": 30.0,
    }
)


class Estimator:
    """Says how long units take, by entries that were measured. seconds: of one core."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._measured: dict[tuple[object, ...], list[float]] = {}
        for entry in entries:
            for alike in _ALIKE:
                self._measured.setdefault(alike(entry.unit), []).append(_per_image(entry))

    def seconds(self, unit: Unit) -> float:
        """Return what the unit is likely to take."""
        for alike in _ALIKE:
            if alike(unit) in self._measured:
                return statistics.fmean(self._measured[alike(unit)]) * max(unit.images, 1)
        share = min(unit.blocks, 3) / 3 if unit.kind == "search" else 1.0
        return (
            _GUESSES.get(unit.method, _GUESSES.get(unit.kind, 0.0)) * share * max(unit.images, 1) / (IMAGES if unit.images else 1)
        )


# From what tells most to what tells least.
_ALIKE: tuple[Callable[[Unit], tuple[object, ...]], ...] = (
    lambda unit: (unit.kind, unit.method, unit.blocks, unit.images, unit.task),
    lambda unit: (unit.kind, unit.method, unit.blocks, unit.images),
    lambda unit: (unit.kind, unit.method, unit.blocks),
)


def _per_image(entry: Entry) -> float:
    return entry.core_s / max(entry.unit.images, 1)
