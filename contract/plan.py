"""The execution plan of one request: pure data, decided before anything runs.

The principle:  same weights, same input      -> compute once
                same weights, different input -> one model, one batch
                different weights             -> run apart
Tensors are named by how they are computed, so that two tasks' steps are the same computation exactly if they apply the
same segment to the same tensors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property

from contract.errors import DifferentInputs, NoTask, UnknownTask
from contract.repository.model import Repository, Step, Task, TensorSpec
from contract.repository.unite import Tensors, unite
from contract.volume import Volume, is_free, joint_volume, volume_of


@dataclass(frozen=True)
class PlanStep:
    """One run of a segment on one or several streams, stacked on the batch axis in this order; the results are split again.

    inputs, outputs: per stream the tensors that the segment takes and gives there. coupled: whether the rows of a run may affect each
    other: then there is one stream, and a run has all rows of a request and nobody else's. free: whether what it takes has sizes that
    requests choose: then streams, and requests, are stacked only where these are equal.
    """

    segment: str
    inputs: tuple[Tensors, ...]
    outputs: tuple[Tensors, ...]
    coupled: bool = False
    free: bool = False


@dataclass(frozen=True)
class ExecutionPlan:
    """The steps in an order in which every input is there when it is needed.

    inputs: the tensors that the request brings. outputs: the tensor of each output that was asked for. volume: of a row; None: no size of
    the inputs is free.
    """

    inputs: Tensors
    steps: tuple[PlanStep, ...]
    outputs: Mapping[str, str]
    volume: Volume | None = None

    @cached_property
    def coupled(self) -> str:
        """Return the first segment because of which a request must not be divided, "" where there is none."""
        return next((step.segment for step in self.steps if step.coupled), "")

    @cached_property
    def is_simple(self) -> bool:
        """Return whether each step is one stream of fixed sizes, whose rows may be anybody's."""
        return not any(step.coupled or step.free or len(step.inputs) > 1 for step in self.steps)

    @cached_property
    def needs(self) -> tuple[frozenset[str], ...]:
        """Return, for each step, the tensors that it takes."""
        return tuple(frozenset(name for names in step.inputs for name in names) for step in self.steps)

    @cached_property
    def followers(self) -> Mapping[str, tuple[int, ...]]:
        """Return, for each tensor, the steps that take it."""
        names = {name for needed in self.needs for name in needed}
        return {name: tuple(index for index, needed in enumerate(self.needs) if name in needed) for name in names}

    @cached_property
    def uses(self) -> Mapping[str, int]:
        """Return how often each tensor is taken, by streams of steps and as an output."""
        taken = Counter(name for step in self.steps for stream in step.inputs for name in stream)
        return taken + Counter(self.outputs.values())


def make_plan(repository: Repository, names: Sequence[str]) -> ExecutionPlan:
    """Return how to answer a request for `names` (tasks, or single outputs of tasks) with each segment run as few times as possible.

    Only steps that a requested output needs are in the plan. Raises NoTask for an empty request, UnknownTask for an unknown name,
    DifferentInputs for tasks that call different inputs by one name.
    """
    if not names:
        raise NoTask(repository.tasks)
    wanted = _wanted(repository, names)
    tasks = list(dict.fromkeys(wanted.values()))
    sources = _sources([repository.tasks[name] for name in tasks])
    steps, tensors = unite(repository.tasks[task] for task in tasks)
    outputs = {output: tensors[task, output] for output, task in wanted.items()}
    coupled = {name for name, segment in repository.segments.items() if segment.is_coupled}
    free = {name for name, segment in repository.segments.items() if is_free(segment.inputs)}
    scheduled = [*_schedule(_needed(steps, outputs.values()), set(sources), coupled)]
    volumes = (volume_of(repository.tasks[task].inputs, repository.tasks[task].sizes) for task in tasks)
    return ExecutionPlan(
        sources,
        tuple(replace(step, free=True) if step.segment in free else step for step in scheduled),
        outputs,
        joint_volume(volumes),
    )


def _sources(tasks: Sequence[Task]) -> Tensors:
    """Return the names of what `tasks` take, each once."""
    found: dict[str, tuple[Task, TensorSpec]] = {}
    for task in tasks:
        for spec in task.inputs:
            other, known = found.setdefault(spec.name, (task, spec))
            if known != spec:
                raise DifferentInputs(other.name, task.name, spec.name)
    return tuple(found)


def _wanted(repository: Repository, names: Iterable[str]) -> dict[str, str]:
    """Return the outputs that `names` stand for, each with its task; a task stands for all of its outputs."""
    of_outputs = {output.name: task.name for task in repository.tasks.values() for output in task.outputs}
    wanted: dict[str, str] = {}
    for name in names:
        if name in repository.tasks:
            wanted.update({output.name: name for output in repository.tasks[name].outputs})
        elif name in of_outputs:
            wanted[name] = of_outputs[name]
        else:
            raise UnknownTask(name, sorted(repository.tasks))
    return wanted


def _needed(steps: list[Step], outputs: Iterable[str]) -> list[Step]:
    """Return the steps without which one of the tensors `outputs` could not be computed."""
    wanted, needed = set(outputs), []
    for step in reversed(steps):  # a step comes after those that it needs
        if wanted.intersection(step.outputs):
            needed.append(step)
            wanted.update(step.inputs)
    return needed[::-1]


def _schedule(steps: list[Step], available: set[str], coupled: Set[str]) -> Iterator[PlanStep]:
    """Yield runs of segments: a segment waits until all of its inputs are there, then takes its streams as one batch.

    Only where segments wait for each other (a network that contains the same frozen blocks twice) one runs with what it has; and those
    that are `coupled` run once for each stream.
    """
    while steps:
        waiting: dict[str, list[Step]] = {}
        for step in steps:
            waiting.setdefault(step.segment, []).append(step)
        ready = {segment: [step for step in group if available.issuperset(step.inputs)] for segment, group in waiting.items()}
        complete = (segment for segment, group in waiting.items() if len(ready[segment]) == len(group))
        chosen = next(complete, None) or next(segment for segment, group in ready.items() if group)
        run = ready[chosen]
        for streams in [[step] for step in run] if chosen in coupled else [run]:
            inputs, outputs = tuple(step.inputs for step in streams), tuple(step.outputs for step in streams)
            yield PlanStep(chosen, inputs, outputs, chosen in coupled)
        available.update(name for step in run for name in step.outputs)
        steps = [step for step in steps if step not in run]
