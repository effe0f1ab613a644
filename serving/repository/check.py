"""What must hold between the models of a repository before it can be served."""

from __future__ import annotations

from serving.errors import RepositoryError
from serving.repository.config import ALL_TASKS
from serving.repository.model import Repository, Segment, Step, Task


def check_repository(repository: Repository) -> None:
    """Raise RepositoryError, naming the model and what is wrong, unless every task can be computed from its input."""
    for segment in repository.segments.values():
        _check_rows(segment)
    producers: dict[str, Step] = {}
    for task in repository.tasks.values():
        _check_rows(task)
        _check_segments(repository, task)
        _check_chain(repository, task)
        _check_names(task, producers)
        _check_labels(task)


def _check_rows(model: Segment | Task) -> None:
    if model.max_batch_rows < 1:
        raise RepositoryError(f"Model {model.name!r} has max_batch_size {model.max_batch_rows}; espalier needs at least 1.")


def _check_segments(repository: Repository, task: Task) -> None:
    for step in task.steps:
        if step.segment not in repository.segments:
            raise RepositoryError(f"Task {task.name!r} needs segment {step.segment!r}, which is not in the repository.")
        if not repository.model_file(step.segment).is_file():
            raise RepositoryError(f"Segment {step.segment!r} has no model.onnx; export the repository again.")


def _check_chain(repository: Repository, task: Task) -> None:
    """Follow the steps from the task's input to its output: names, types and shapes must meet."""
    if task.name == ALL_TASKS or task.output.name != task.name:
        raise RepositoryError(f"Task {task.name!r} has an output named {task.output.name!r}; it must be named like the task.")
    name, dtype, shape = task.input.name, task.input.dtype, task.input.shape
    for step in task.steps:
        segment = repository.segments[step.segment]
        if step.input != name:
            raise RepositoryError(
                f"Task {task.name!r} is no chain: {step.segment!r} reads {step.input!r} where {name!r} comes in."
            )
        if (segment.input.dtype, segment.input.shape) != (dtype, shape):
            raise RepositoryError(
                f"Task {task.name!r} gives segment {step.segment!r} {dtype} rows of shape {list(shape)}; "
                f"it takes {segment.input.dtype} rows of shape {list(segment.input.shape)}."
            )
        name, dtype, shape = step.output, segment.output.dtype, segment.output.shape
    if (name, dtype, shape) != (task.output.name, task.output.dtype, task.output.shape):
        raise RepositoryError(f"Task {task.name!r} ends in {name!r} ({dtype} {list(shape)}), which is not its output.")


def _check_names(task: Task, producers: dict[str, Step]) -> None:
    """Tensors are named by how they are computed: one name for two computations would mix up the tasks' answers."""
    for step in task.steps:
        other = producers.setdefault(step.output, step)
        if other != step or step.output == task.input.name:
            raise RepositoryError(f"Task {task.name!r} computes tensor {step.output!r}, which is something else already.")


def _check_labels(task: Task) -> None:
    if task.labels and task.output.shape != (len(task.labels),):
        raise RepositoryError(f"Task {task.name!r} has {len(task.labels)} labels for outputs of shape {list(task.output.shape)}.")
