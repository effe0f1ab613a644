"""Which tensors of a plan are worth keeping, and what is left of the plan when some are there. Pure functions."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from math import prod

from contract.dtypes import NUMPY_DTYPES
from contract.plan import ExecutionPlan, PlanStep
from contract.repository.model import Repository, Segment, Task
from contract.repository.unite import Tensors

_EXTRA = "\0"  # begins the name of an output that no client can ask for
_MOST_REMAINDERS = 64  # of one plan that are remembered

Address = bytes  # of a tensor: a hash of the segments by which it is computed from the request's inputs, and of their names


@dataclass(frozen=True)
class Tap:
    """A tensor that requests for other tasks take, too. name: in its plan. inputs: of the request, on which it depends.

    segments: without which it is not there. row_bytes: of one row, 0 where its size is free.
    """

    name: str
    address: Address
    inputs: Tensors
    segments: frozenset[str]
    row_bytes: int


@dataclass(frozen=True)
class Remainder:
    """What is left to run of a plan. given: the taps that it, or the answer, takes. made: those that it computes, as outputs of `plan`.

    answered: of the outputs that were asked for, those that are taps which are there, and which. skipped: segments that need not run.
    """

    plan: ExecutionPlan
    given: frozenset[str]
    made: Mapping[str, str]
    answered: Mapping[str, str]
    skipped: Tensors


def worth_keeping(repository: Repository) -> Mapping[Address, int]:
    """Return the tensors that some tasks of `repository`, canaries included, share and then go apart at, with the bytes of a row.

    What all of those that compute it take into the same segment is not: that segment's outputs stand for it.
    """
    users: dict[Address, set[tuple[str, str]]] = {}
    takers: dict[Address, set[Address]] = {}
    made: dict[Address, tuple[Address, int]] = {}  # of a tensor: its step, its bytes
    answers: set[Address] = set()
    for task in _served(repository):
        known = {spec.name: _of_input(spec.name) for spec in task.inputs}
        for step in task.steps:
            segment = repository.segments[step.segment]
            at = _of_step(step.segment, [known[name] for name in step.inputs])
            users.setdefault(at, set()).add((task.name, task.version))
            for name in step.inputs:
                takers.setdefault(known[name], set()).add(at)
            for place, name in enumerate(step.outputs):
                known[name] = _of_output(at, place)
                made[known[name]] = at, _row_bytes(segment, place)
        answers.update(known[spec.name] for spec in task.outputs)
    return {
        tensor: size
        for tensor, (step, size) in made.items()
        if len(users[step]) > 1 and (tensor in answers or any(users[taker] != users[step] for taker in takers.get(tensor, ())))
    }


class PlanTaps:
    """The taps of `plan` that are `worth` keeping, and its remainders when some of them are there."""

    def __init__(self, plan: ExecutionPlan, worth: Mapping[Address, int]) -> None:
        self.plan = plan
        self.taps = {tap.name: tap for tap in _taps(plan, worth)}
        self.inputs = tuple({name: None for tap in self.taps.values() for name in tap.inputs})
        self._remainders: dict[tuple[frozenset[str], frozenset[str]], Remainder] = {}

    def remainder(self, there: Set[str], kept: Collection[str]) -> Remainder:
        """Return what is left to run when the taps `there` are, which gives those of the taps `kept` that it computes.

        The same arguments give the same object, so that requests with equal plans run together.
        """
        key = frozenset(there), frozenset(kept)
        if key not in self._remainders:
            if len(self._remainders) >= _MOST_REMAINDERS:
                self._remainders.clear()
            self._remainders[key] = _remainder(self.plan, *key)
        return self._remainders[key]


def _remainder(plan: ExecutionPlan, there: frozenset[str], kept: frozenset[str]) -> Remainder:
    wanted = set(plan.outputs.values())
    steps: list[PlanStep] = []
    skipped: list[str] = []
    for step in reversed(plan.steps):
        streams = [place for place, names in enumerate(step.outputs) if wanted.difference(there).intersection(names)]
        wanted.update(name for place in streams for name in step.inputs[place])
        if not streams:
            skipped.append(step.segment)
        elif len(streams) == len(step.outputs):
            steps.append(step)
        else:
            taken, given = (tuple([side[place] for place in streams]) for side in (step.inputs, step.outputs))
            steps.append(replace(step, inputs=taken, outputs=given))
    steps.reverse()
    computed = {name for step in steps for names in step.outputs for name in names}
    used = frozenset(wanted & there - computed)  # no tensor is both given and computed: a step must not hear of it twice
    made = {_EXTRA + name: name for name in sorted(kept & computed - there)}
    outputs = {output: name for output, name in plan.outputs.items() if name not in used}
    needed = {name for step in steps for names in step.inputs for name in names}
    inputs = tuple(name for name in (*plan.inputs, *sorted(used)) if name in needed)
    answered = {output: name for output, name in plan.outputs.items() if name in used}
    left = ExecutionPlan(inputs, tuple(steps), {**outputs, **made}, plan.volume)
    return Remainder(left, used, made, answered, tuple(reversed(skipped)))


def _taps(plan: ExecutionPlan, worth: Mapping[Address, int]) -> Iterator[Tap]:
    known = {name: (_of_input(name), frozenset([name]), frozenset[str]()) for name in plan.inputs}
    for step in plan.steps:
        for taken, given in zip(step.inputs, step.outputs, strict=True):
            parts = [known[name] for name in taken]
            at = _of_step(step.segment, [address for address, _, _ in parts])
            inputs = frozenset[str]().union(*(found for _, found, _ in parts))
            segments = frozenset([step.segment]).union(*(found for _, _, found in parts))
            for place, name in enumerate(given):
                address = _of_output(at, place)
                known[name] = address, inputs, segments
                if address in worth:
                    yield Tap(name, address, tuple(sorted(inputs)), segments, worth[address])


def _served(repository: Repository) -> Iterator[Task]:
    for task in repository.tasks.values():
        if task.plain is None:
            yield task
            if task.canary is not None:
                yield task.canary.task


def _row_bytes(segment: Segment, place: int) -> int:
    spec = segment.outputs[place]
    return prod(spec.shape) * NUMPY_DTYPES[spec.dtype].itemsize if all(size >= 0 for size in spec.shape) else 0


def _of_input(name: str) -> Address:
    return _hashed([b"input", name.encode()])


def _of_step(segment: str, inputs: Iterable[Address]) -> Address:
    return _hashed([b"step", segment.encode(), *inputs])


def _of_output(step: Address, place: int) -> Address:
    return _hashed([b"output", step, str(place).encode()])


def _hashed(parts: Iterable[bytes]) -> Address:
    return hashlib.blake2b(b"".join(len(part).to_bytes(4, "big") + part for part in parts), digest_size=32).digest()
