"""What a request for all tasks computes, as a graph: which segment runs on what, and for which tasks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import comb

from contract.costs import bytes_in_files, separate_cost
from contract.plan import make_plan
from contract.repository import Repository

TRUNK, SHARED, OWN = "trunk", "shared", "own"


@dataclass(frozen=True)
class Stream:
    """One application of a segment: the tensors that it takes and gives, and the tasks that need it."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tasks: frozenset[str]


@dataclass(frozen=True)
class FlowRun:
    """A segment on one or several streams, which are stacked on the batch axis."""

    segment: str
    streams: tuple[Stream, ...]

    @property
    def tasks(self) -> frozenset[str]:
        """Return the tasks that need any of the streams."""
        return frozenset().union(*(stream.tasks for stream in self.streams))


@dataclass(frozen=True)
class Flow:
    """The runs, each after those whose results it takes; the tensor of every output, by its name, and of every input."""

    inputs: tuple[str, ...]
    runs: tuple[FlowRun, ...]
    outputs: dict[str, str]


@dataclass(frozen=True)
class _MeanCost:
    """What a request for one row and `tasks` tasks costs in the mean over all choices of that many."""

    tasks: int
    macs: float
    weight_bytes: float


def make_flow(repository: Repository) -> Flow:
    """Return what a request for all tasks computes. Raises DifferentInputs as `make_plan` does."""
    plan = make_plan(repository, list(repository.tasks))
    owners = {output.name: task.name for task in repository.tasks.values() for output in task.outputs}
    users: dict[str, set[str]] = defaultdict(set)
    for output, tensor in plan.outputs.items():
        users[tensor].add(owners[output])
    runs = []
    for step in reversed(plan.steps):
        streams = []
        for inputs, outputs in zip(step.inputs, step.outputs, strict=True):
            tasks = frozenset().union(*(users[tensor] for tensor in outputs))
            for tensor in inputs:
                users[tensor] |= tasks
            streams.append(Stream(inputs, outputs, tasks))
        runs.append(FlowRun(step.segment, tuple(streams)))
    return Flow(plan.inputs, tuple(reversed(runs)), dict(plan.outputs))


def role(run: FlowRun) -> str:
    """Return what a run is in the tree: TRUNK, SHARED or OWN, by the exporter's name for the segment or, failing that, by its users."""
    for known in (TRUNK, SHARED):
        if run.segment.startswith(f"{known}-"):
            return known
    if len(run.tasks) == 1:
        return OWN
    return SHARED if len(run.streams) > 1 else TRUNK


def mean_cost(repository: Repository, flow: Flow, tasks: int) -> _MeanCost:
    """Return the cost of a request for `tasks` tasks in the mean over all choices.

    What u of N tasks need is needed by a choice of k with probability 1 - C(N - u, k) / C(N, k): exact, and nothing is enumerated.
    """
    number = len(repository.tasks)

    def needed(users: Iterable[str]) -> float:
        return 1 - comb(number - len(set(users)), tasks) / comb(number, tasks)

    macs = sum(repository.segments[run.segment].macs * needed(stream.tasks) for run in flow.runs for stream in run.streams)
    users: dict[str, set[str]] = defaultdict(set)
    for run in flow.runs:
        users[run.segment] |= run.tasks
    weights = sum(repository.segments[name].weight_bytes * needed(who) for name, who in users.items())
    for file, counts in bytes_in_files(repository, users).items():  # loaded once, whichever of its segments are needed
        owners = {name: who for name, who in users.items() if file in repository.segments[name].weight_files}
        own = sum(repository.segments[name].weight_files[file] * needed(who) for name, who in owners.items())
        weights += max(counts) * needed(set[str]().union(*owners.values())) - own
    return _MeanCost(tasks, macs, weights)


def compare_costs(repository: Repository) -> list[tuple[_MeanCost, _MeanCost]]:
    """Return for 1, 2, 4, ... and all tasks what they cost shared, and as networks of their own."""
    flow, number = make_flow(repository), len(repository.tasks)
    alone = separate_cost(repository, list(repository.tasks))
    counts = [*(2**power for power in range(number.bit_length()) if 2**power < number), number]
    return [
        (mean_cost(repository, flow, count), _MeanCost(count, alone.macs * count / number, alone.weight_bytes * count / number))
        for count in counts
    ]
