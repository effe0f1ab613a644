"""The execution plan of one request: pure data, decided before anything runs.

The principle:  same weights, same input      -> compute once
                same weights, different input -> one model, one batch
                different weights             -> run apart
Tensors are named by how they are computed, so that two tasks' steps are the same computation exactly if they apply the
same segment to the same tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from serving.errors import DifferentInputs, NoTask, UnknownTask
from serving.repository.model import Repository, Step


@dataclass(frozen=True)
class PlanStep:
    """One run of a segment: the tensors `inputs` are stacked on the batch axis in this order, the result split into `outputs`."""

    segment: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class ExecutionPlan:
    """The steps in an order in which every input is there when it is needed; `outputs` maps each task to its tensor."""

    input: str
    steps: tuple[PlanStep, ...]
    outputs: Mapping[str, str]


def make_plan(repository: Repository, tasks: Sequence[str]) -> ExecutionPlan:
    """Return how to answer a request for `tasks` with each segment run as few times as possible.

    Only steps that a requested task needs are in the plan. Raises NoTask for an empty request, UnknownTask for an unknown name,
    DifferentInputs for tasks that cannot be computed from one input.
    """
    if not tasks:
        raise NoTask(repository.tasks)
    for name in tasks:
        if name not in repository.tasks:
            raise UnknownTask(name, repository.tasks)
        if repository.tasks[name].input != repository.tasks[tasks[0]].input:
            raise DifferentInputs(tasks[0], name)
    source = repository.tasks[tasks[0]].input.name
    steps, outputs = _unite(repository, dict.fromkeys(tasks))
    return ExecutionPlan(source, tuple(_schedule(steps, {source})), outputs)


def _unite(repository: Repository, tasks: Iterable[str]) -> tuple[list[Step], dict[str, str]]:
    """Return the tasks' steps without repetition, and the tensor of each task.

    The same segment on the same tensor is the same value, whatever the tasks call the result: one name is kept.
    """
    united: dict[tuple[str, str], Step] = {}
    outputs = {}
    for task in tasks:
        name = repository.tasks[task].input.name
        for step in repository.tasks[task].steps:
            name = united.setdefault((step.segment, name), Step(step.segment, name, step.output)).output
        outputs[task] = name
    return list(united.values()), outputs


def _schedule(steps: list[Step], available: set[str]) -> Iterable[PlanStep]:
    """Yield runs of segments: a segment waits until all of its inputs are there, then takes them as one batch.

    Only where segments wait for each other (a network that contains the same frozen blocks twice) one runs with what it has.
    """
    while steps:
        waiting: dict[str, list[Step]] = {}
        for step in steps:
            waiting.setdefault(step.segment, []).append(step)
        ready = {segment: [step for step in group if step.input in available] for segment, group in waiting.items()}
        complete = (segment for segment, group in waiting.items() if len(ready[segment]) == len(group))
        chosen = next(complete, None) or next(segment for segment, group in ready.items() if group)
        run = ready[chosen]
        yield PlanStep(chosen, tuple(step.input for step in run), tuple(step.output for step in run))
        available.update(step.output for step in run)
        steps = [step for step in steps if step not in run]
