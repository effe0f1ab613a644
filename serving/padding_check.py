"""Finds out by runs which tasks answer the same when their texts are padded, before anybody is answered so."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from contract.dtypes import NUMPY_DTYPES, Array
from contract.plan import ExecutionPlan, make_plan
from contract.repository.config import ALL_TASKS
from contract.repository.model import Repository, Task
from contract.repository.reference import at_reference
from contract.repository.rows import LIMIT, allowed_error
from contract.repository.sample import sample_inputs
from contract.units import listed
from serving.engines.base import Answer, Call, Engine
from serving.errors import WrongAnswer
from serving.padding import PaddedOutput, Padding, Unpaddable, check_batched, padded_outputs, padding_of
from serving.parity import compare, has_record, patient_answer

log = logging.getLogger(__name__)
_ROWS = 2
PaddedOutputs = Mapping[tuple[str, str], Mapping[str, PaddedOutput]]
"""Of each version of a task that is padded, by its name and number: its outputs."""


class PaddingCheck:
    """Tries the tasks of repositories whose segments are open in `engine`. lengths: to which texts are padded; none: nothing is padded.

    Raises ValueError for lengths below 1.
    """

    def __init__(self, engine: Engine, lengths: Sequence[int] = ()) -> None:
        if any(length < 1 for length in lengths):
            raise ValueError(f"texts are padded to lengths of at least 1, not {list(lengths)}")
        self._engine = engine
        self._lengths = tuple(sorted({*lengths}))
        self._known: dict[tuple[str, str], tuple[Task, Mapping[str, PaddedOutput]]] = {}

    async def tried(self, repository: Repository) -> PaddedOutputs:
        """Return which versions of the tasks of `repository` are padded; log what that means for those that are new.

        Raises QueueFull when the queue is full for half a minute.
        """
        if not self._lengths:
            return {}
        versions = list(_versions(repository.tasks.values()))
        known = {key: self._known[key] for task in versions if (key := _key(task)) in self._known and self._known[key][0] == task}
        new = [task for task in versions if _key(task) not in known]
        groups, reasons = self._groups(repository, new)
        for group in groups:
            reasons |= await self._try(repository, group)
            known |= {
                _key(task): (task, padded_outputs(task, group.padding)) for task in group.tasks if _key(task) not in reasons
            }
        self._say([task.name for task in new if _key(task) not in reasons], {key[0]: reason for key, reason in reasons.items()})
        self._known = known | {_key(task): (task, {}) for task in new if _key(task) in reasons}
        return {key: outputs for key, (_, outputs) in self._known.items() if outputs}

    def _groups(self, repository: Repository, tasks: Sequence[Task]) -> tuple[list[_Group], dict[tuple[str, str], str]]:
        """Return those of `tasks` that can be tried, together where they take the same, and why others cannot be padded."""
        groups: list[_Group] = []
        reasons = {}
        for task in tasks:
            try:
                check_batched(repository, task)
                padding = padding_of(task, self._lengths)
            except Unpaddable as reason:
                reasons[_key(task)] = str(reason)
                continue
            group = next((group for group in groups if group.takes(task, padding)), None)
            if group is None:
                groups.append(_Group(padding, [task]))
            else:
                group.tasks.append(task)
        return groups, reasons

    async def _try(self, repository: Repository, group: _Group) -> dict[tuple[str, str], str]:
        """Return why tasks of `group` are not to be padded: those that do not answer the same then."""
        reasons: dict[tuple[str, str], str] = {}
        plan = make_plan(
            replace(repository, tasks={task.name: task for task in group.tasks}), [task.name for task in group.tasks]
        )
        for inputs, length in group.trials():
            alone, padded = await self._answer(plan, inputs), await self._answer(plan, group.padding.padded_to(inputs, length))
            for task in group.tasks:
                try:
                    _compare(task, _of(task, alone), _of(task, padded), padded_outputs(task, group.padding), length)
                except Unpaddable as reason:
                    reasons.setdefault(_key(task), str(reason))
        sample, length = group.sample()
        if length and any(map(has_record, group.tasks)):
            answer = await self._answer(plan, group.padding.padded_to(sample, length))
            for task in filter(has_record, group.tasks):
                try:
                    cut = padded_outputs(task, group.padding)
                    found = _of(task, answer)
                    compare(
                        task, {name: cut[name].cut(values, group.padding.length_of(sample)) for name, values in found.items()}
                    )
                except (Unpaddable, WrongAnswer) as reason:
                    reasons.setdefault(
                        _key(task), f"padded to {length}, it does not answer as recorded ({str(reason).rstrip('.')})"
                    )
        return reasons

    async def _answer(self, plan: ExecutionPlan, inputs: Mapping[str, Array]) -> Answer:
        return await patient_answer(self._engine, plan, inputs, Call(ALL_TASKS))

    def _say(self, padded: Sequence[str], reasons: Mapping[str, str]) -> None:
        if padded:
            log.info("Texts are padded to %s for %s.", ", ".join(map(str, self._lengths)), listed(list(map(repr, padded))))
        for reason in dict.fromkeys(reasons.values()):
            names = [repr(name) for name, other in reasons.items() if other == reason]
            log.warning("Requests for %s are not padded: %s.", listed(names), reason.rstrip("."))


@dataclass
class _Group:
    """Tasks that are padded alike and take the same."""

    padding: Padding
    tasks: list[Task]

    def takes(self, task: Task, padding: Padding) -> bool:
        first = self.tasks[0]
        alike = (task.inputs, task.sizes, task.values) == (first.inputs, first.sizes, first.values)
        return alike and padding == self.padding and task.name not in {other.name for other in self.tasks}

    def sample(self) -> tuple[Mapping[str, Array], int]:
        """Return the sample input, and a length to which it can be padded; 0: there is none."""
        sample = sample_inputs(at_reference(self.tasks[0].inputs, self.tasks[0].sizes))
        length = self.padding.length_of(sample)
        return sample, next((longer for longer in self.padding.lengths if longer > length), 0)

    def trials(self) -> Iterator[tuple[Mapping[str, Array], int]]:
        """Yield inputs and to which length they are padded: the shortest and the longest for each length, and some of several tokens.

        What is added to a text of one token may hide where it is not masked: all of it sees that token alone.
        """
        size = self.tasks[0].sizes.get(self.padding.axis)
        shortest, longest = (1, None) if size is None else (size.least, size.most)
        tried = min(shortest + 8, longest or shortest + 8)
        pairs = [(max(shortest, tried - 4), tried)]
        for before, after in zip((0, *self.padding.lengths), self.padding.lengths, strict=False):
            pairs += [(max(before + 1, shortest), after), (after - 1, after)]
        for length, after in dict.fromkeys(pairs):
            if shortest <= length < after:
                yield _texts(self.tasks[0], self.padding, length), after


def _of(task: Task, answer: Answer) -> Mapping[str, Array]:
    """Return what `answer` has for `task`. Raises Unpaddable where that failed."""
    for spec in task.outputs:
        if spec.name in answer.errors:
            raise Unpaddable(f"it cannot be tried ({str(answer.errors[spec.name]).rstrip('.')})")
    return {spec.name: answer.outputs[spec.name] for spec in task.outputs}


def _versions(tasks: Iterable[Task]) -> Iterator[Task]:
    for task in tasks:
        yield task
        if task.canary is not None:
            yield task.canary.task


def _key(task: Task) -> tuple[str, str]:
    return task.name, task.version


def _texts(task: Task, padding: Padding, length: int) -> dict[str, Array]:
    """Return inputs of some rows, the second of which has masked tokens at its end, with any ids that the task takes."""
    sizes = {**task.sizes}
    chosen = {name: size.reference for name, size in sizes.items()} | {padding.axis: length}
    random = np.random.default_rng(length)
    made: dict[str, Array] = {}
    for spec in task.inputs:
        shape = (_ROWS, *spec.shape_at(chosen))
        least, most = task.values.get(spec.name, (0, 1))
        if spec.name == padding.mask:
            made[spec.name] = np.ones(shape, NUMPY_DTYPES[spec.dtype])
            made[spec.name][1, max(1, length - length // 3) :] = 0
        elif spec.name in padding.fill:
            made[spec.name] = random.integers(least, most + 1, shape).astype(NUMPY_DTYPES[spec.dtype])
        else:
            made |= sample_inputs([replace(spec, shape=shape[1:], axes=())], _ROWS)
    return made


def _compare(
    task: Task, alone: Mapping[str, Array], padded: Mapping[str, Array], cut: Mapping[str, PaddedOutput], length: int
) -> None:
    """Raise Unpaddable unless what `task` answers to texts `alone` is what it answers when they are padded to `length`."""
    allowed = allowed_error(task.outputs, LIMIT)
    for spec in task.outputs:
        theirs = alone[spec.name].astype(np.float64)
        own_length = theirs.shape[cut[spec.name].places[0]] if cut[spec.name].places else 0
        ours = cut[spec.name].cut(padded[spec.name], own_length).astype(np.float64)
        known = np.isfinite(theirs)
        if ours.shape != theirs.shape or not np.array_equal(np.isfinite(ours), known):
            raise Unpaddable(f"padded to {length}, its output {spec.name!r} has another shape, or numbers in other places")
        largest = float(np.abs(theirs[known]).max(initial=0.0))
        difference = float(np.abs(ours[known] - theirs[known]).max(initial=0.0))
        if difference > allowed * largest:
            raise Unpaddable(
                f"padded to {length}, its output {spec.name!r} changes by {difference / (largest or 1):.2g} of its largest value: the mask "
                "does not hide what is added"
            )
