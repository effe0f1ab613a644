"""How many runs of segments a request for several tasks saves."""

from __future__ import annotations

from contract.plan import ExecutionPlan
from contract.repository.model import Repository, Task


class SavedSteps:
    """Compares plans with what their tasks would take one by one. Made once per repository, so that a request pays little."""

    def __init__(self, repository: Repository) -> None:
        self._alone = {
            output.name: (task.name, _steps_for(task, output.name))
            for task in repository.tasks.values()
            for output in task.outputs
        }

    def of(self, plan: ExecutionPlan) -> int:
        """Return how many runs `plan` saves against one plan per task; 0 for a plan of one task or of a segment on its own."""
        if len(plan.outputs) < 2:
            return 0
        separate: dict[str, set[int]] = {}
        for output in plan.outputs:
            task, steps = self._alone.get(output, ("", frozenset()))
            separate.setdefault(task, set()).update(steps)
        return max(0, sum(map(len, separate.values())) - len(plan.steps)) if len(separate) > 1 else 0


def _steps_for(task: Task, output: str) -> frozenset[int]:
    """Return the places of the steps of `task` without which `output` could not be computed."""
    wanted, needed = {output}, []
    for place, step in reversed(list(enumerate(task.steps))):
        if wanted.intersection(step.outputs):
            needed.append(place)
            wanted.update(step.inputs)
    return frozenset(needed)
