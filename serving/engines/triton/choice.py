"""Which ensemble of Triton computes a plan, if any. Pure: what is decided is data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from contract.errors import EspalierError
from contract.plan import ExecutionPlan, make_plan
from contract.repository.config import ALL_TASKS
from contract.repository.model import Repository, Step, Task
from serving.engines.triton.channels import Users


@dataclass(frozen=True)
class Ensembles:
    """The ensembles that every Triton serves now: those of the tasks of `repository`, and maybe `all_tasks` of at least those."""

    repository: Repository
    has_all_tasks: bool


@dataclass(frozen=True)
class Ensemble:
    """One to be asked, and the most rows that it takes."""

    name: str
    max_rows: int


def choose(plan: ExecutionPlan, ensembles: Ensembles) -> Ensemble | None:
    """Return the ensemble that computes `plan`; None where its steps have to be run one by one.

    An ensemble is asked exactly if it runs the plan's own steps. So requests that began before a task was replaced, canaries, and
    segments that are called by name never get the answer of another version.
    """
    tasks = ensembles.repository.tasks
    owners = {output.name: task.name for task in tasks.values() for output in task.outputs if output.name in plan.outputs}
    names = sorted(set(owners.values()))
    if owners.keys() != plan.outputs.keys() or not _is_what_tasks_compute(plan, ensembles.repository):
        return None
    if len(names) == 1:
        return Ensemble(names[0], tasks[names[0]].max_batch_rows)
    return Ensemble(ALL_TASKS, min(task.max_batch_rows for task in tasks.values())) if ensembles.has_all_tasks else None


def unchanged(before: Ensembles, after: Ensembles) -> Ensembles:
    """Return the ensembles that are the same in both: those to be asked while Triton goes from one to the other.

    `all_tasks` is replaced in one step, and gives for their outputs the same before and after.
    """
    new = after.repository.tasks
    same = {
        name: task for name, task in before.repository.tasks.items() if name in new and _computed(task) == _computed(new[name])
    }
    return Ensembles(replace(before.repository, tasks=same), before.has_all_tasks and after.has_all_tasks)


def _computed(task: Task) -> tuple[object, ...]:
    return task.steps, task.inputs, task.outputs


def _is_what_tasks_compute(plan: ExecutionPlan, repository: Repository) -> bool:
    try:
        own = make_plan(repository, list(plan.outputs))
    except EspalierError:
        return False
    return (own.inputs, own.outputs, _applied(own)) == (plan.inputs, plan.outputs, _applied(plan))


def _applied(plan: ExecutionPlan) -> frozenset[Step]:
    """Return which segments are applied to what; whether they are stacked is nothing to an ensemble."""
    return frozenset(
        Step(step.segment, inputs, outputs)
        for step in plan.steps
        for inputs, outputs in zip(step.inputs, step.outputs, strict=True)
    )


class Choices:
    """Remembers what was chosen for plans, which are few and the same objects again and again. users: requests that rely on it."""

    def __init__(self, ensembles: Ensembles, most: int = 4096) -> None:
        self.ensembles = ensembles
        self.users = Users()
        self._most = most
        self._made: dict[int, tuple[ExecutionPlan, Ensemble | None]] = {}  # with the plan, so that its id is its own

    def of(self, plan: ExecutionPlan) -> Ensemble | None:
        """Return `choose` for `plan`."""
        made = self._made.get(id(plan))
        if made is None:
            if len(self._made) >= self._most:
                self._made.clear()
            made = self._made[id(plan)] = (plan, choose(plan, self.ensembles))
        return made[1]


def ensembles_of(repository: Repository, names: Mapping[str, object]) -> Ensembles:
    """Return the ensembles of `repository`, whose models have these names."""
    return Ensembles(repository, ALL_TASKS in names)
