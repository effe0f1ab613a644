"""Which tasks of a repository are measured, and in which requests: decided before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from contract.errors import UnknownTask
from contract.repository import Repository, Task, TensorSpec

ONE, SOME, ALL = "one task", "some tasks", "all tasks"
_MEMORY = 0.5  # of the machine's, which separate networks may take


@dataclass(frozen=True)
class OwnPart:
    """What a task has for itself: the segments that no other task of its repository runs. weight_bytes: of their files' weights."""

    task: str
    segments: int
    macs: int
    weight_bytes: int


@dataclass(frozen=True)
class Asked:
    """One request that is measured. kind: ONE, SOME or ALL."""

    kind: str
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """parts: the tasks that are measured, from the least to the largest own part. requests: in the order in which they are measured.

    notes: what was left out, and why, a sentence each.
    """

    parts: tuple[OwnPart, ...]
    requests: tuple[Asked, ...]
    notes: tuple[str, ...]


def own_parts(repository: Repository) -> dict[str, OwnPart]:
    """Return the own part of each task, from the least to the largest."""
    users = Counter(segment for task in repository.tasks.values() for segment in {step.segment for step in task.steps})
    found = [_own_part(repository, task, users) for task in repository.tasks.values()]
    return {part.task: part for part in sorted(found, key=lambda part: (part.macs, part.weight_bytes, part.task))}


def choose(repository: Repository, wanted: Sequence[str], most: int, memory_bytes: int, copies: int = 2) -> Choice:
    """Return what is measured of `repository`: the tasks `wanted`, or without any all that can be, of which `most` are enough.

    memory_bytes: of the machine, 0: not known; half of it is for separate networks, of each of which so many copies are open at a time.
    Raises UnknownTask.
    """
    for name in wanted:
        if name not in repository.tasks:
            raise UnknownTask(name, sorted(repository.tasks))
    notes: list[str] = []
    parts = own_parts(repository)
    names = [name for name in parts if name in wanted] if wanted else _can_be_measured(repository, parts, notes)
    fit = len(names) if wanted else min(most, _that_fit(repository, names, memory_bytes / copies, notes))
    chosen = spread(names, fit)
    if len(chosen) < len(names):
        notes.append(
            f"Of {len(names):,} tasks {len(chosen)} are measured, evenly from the one with the least own part to the one with the largest."
        )
    together = _together(repository, chosen, notes)
    return Choice(tuple(parts[name] for name in chosen), tuple(_requests(chosen, together)), tuple(notes))


def spread(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return `count` of `names` evenly, among them the first and the last, and the middle one where count is odd."""
    if count >= len(names):
        return tuple(names)
    if count == 1:
        return (names[len(names) // 2],)
    return tuple(names[round(place * (len(names) - 1) / (count - 1))] for place in range(count))


def _requests(chosen: Sequence[str], together: Sequence[str]) -> list[Asked]:
    alone = spread(chosen, 3)
    found = [Asked(ONE, (name,)) for name in alone]
    if len(together) > 2:
        found.append(Asked(SOME, spread(together, (len(together) + 1) // 2)))
    if len(together) > 1:
        found.append(Asked(ALL, tuple(together)))
    return found


def _can_be_measured(repository: Repository, names: Sequence[str] | dict[str, OwnPart], notes: list[str]) -> list[str]:
    """Return the tasks that espalier has exported; where there are none, the other models."""
    exported = [name for name in names if repository.tasks[name].plain is None]
    others = [name for name in names if repository.tasks[name].plain is not None]
    if exported and others:
        notes.append(f"Left out: {_few(others)}, which espalier did not export: such models share nothing.")
    if not exported:
        notes.append("Nothing here was exported by espalier, so that nothing is shared: each model is a network by itself.")
    return exported or others


def _that_fit(repository: Repository, names: Sequence[str], memory_bytes: float, notes: list[str]) -> int:
    """Return how many tasks can be open as separate networks."""
    sizes = sorted(_bytes_of(repository, repository.tasks[name]) for name in names)
    if not memory_bytes or not sizes:
        return len(names)
    fit = max(1, int(memory_bytes * _MEMORY // max(sizes[-1], 1)))
    if fit < len(names):
        notes.append(f"Separate networks of {fit} tasks fit into half of the memory, all that are open at a time.")
    return fit


def _together(repository: Repository, chosen: Sequence[str], notes: list[str]) -> list[str]:
    """Return the most of `chosen` that one request can ask for: those that call no different inputs by one name."""
    groups: list[_Group] = []
    for task in (repository.tasks[name] for name in chosen):
        if task.plain is None and not any(group.add(task) for group in groups):
            groups.append(_Group(task))
    groups.sort(key=lambda group: -len(group.tasks))
    apart = [name for group in groups[1:] for name in group.tasks]
    if apart:
        notes.append(
            f"One request asks for {len(groups[0].tasks)} tasks at most: {_few(apart)} take other inputs, or sizes, by the same names."
        )
    return groups[0].tasks if groups else []


class _Group:
    """Tasks that one request can ask for."""

    def __init__(self, task: Task) -> None:
        self.tasks: list[str] = []
        self._inputs: dict[str, TensorSpec] = {}
        self._sizes: dict[str, tuple[int, float]] = {}
        self.add(task)

    def add(self, task: Task) -> bool:
        """Take `task` if it agrees with those that are there; return whether it does."""
        sizes = {name: (size.least, size.most or inf) for name, size in task.sizes.items()}
        for name, (least, most) in self._sizes.items():
            if name in sizes:
                sizes[name] = max(least, sizes[name][0]), min(most, sizes[name][1])
        if any(self._inputs.get(spec.name, spec) != spec for spec in task.inputs) or any(a > b for a, b in sizes.values()):
            return False
        self.tasks.append(task.name)
        self._inputs |= {spec.name: spec for spec in task.inputs}
        self._sizes |= sizes
        return True


def _own_part(repository: Repository, task: Task, users: Counter[str]) -> OwnPart:
    own = {step.segment for step in task.steps if users[step.segment] == 1}
    macs = sum(repository.segments[step.segment].macs for step in task.steps if step.segment in own)
    return OwnPart(task.name, len(own), macs, sum(_segment_bytes(repository, name) for name in own))


def _bytes_of(repository: Repository, task: Task) -> int:
    return sum(_segment_bytes(repository, name) for name in {step.segment for step in task.steps})


def _segment_bytes(repository: Repository, name: str) -> int:
    segment = repository.segments[name]
    return repository.model_file(name).stat().st_size if segment.plain else segment.weight_bytes


def _few(names: Sequence[str], most: int = 5) -> str:
    """Return some of `names` for a sentence."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"
