"""What must hold between the models of a repository before it can be served."""

from __future__ import annotations

from collections.abc import Collection
from math import prod

from contract.errors import RepositoryError
from contract.kinds.kind import KindDoesNotFit
from contract.repository.config import ALL_TASKS
from contract.repository.free_sizes import references_of
from contract.repository.model import Repository, Segment, Step, Task, TensorSpec
from contract.repository.record import SAMPLE, recorded_places
from contract.repository.tokenizers import files_of

_Type = tuple[str, tuple[int, ...]]  # dtype and shape of a tensor


def check_repository(repository: Repository) -> None:
    """Raise RepositoryError, naming the model and what is wrong, unless every task can be computed from its inputs."""
    for segment in repository.segments.values():
        _check_rows(segment)
    names = _Names()
    computable = {name for name in repository.segments if repository.model_file(name).is_file()}
    for task in repository.tasks.values():
        _check_task(repository, task, computable)
        names.check(task)
    for task in repository.tasks.values():
        _check_versions(task)
        _check_tokenizers(repository, task)
        for kept in task.versions[1:]:
            _check_task(repository, kept, computable)
            names.check(kept, {output.name for output in task.outputs})


def _check_task(repository: Repository, task: Task, computable: Collection[str]) -> None:
    _check_rows(task)
    _check_segments(repository, task, computable)
    _check_output_names(task)
    _check_wiring(repository, task)
    _check_labels(task)
    _check_record(task)
    _check_text(task)


def _check_versions(task: Task) -> None:
    """A canary answers requests that were made for the current version, so it must take and give the same tensors."""
    numbers = [int(version.version) for version in task.versions]
    if len({*numbers}) < len(numbers) or min(numbers) < 1:
        listed = " and ".join(map(str, numbers))
        raise RepositoryError(
            f"Task {task.name!r} has versions numbered {listed}; each must have a number of its own, 1 or more."
        )
    if any(kept.previous or kept.canary for kept in task.versions[1:]):
        raise RepositoryError(f"Task {task.name!r} keeps a version that keeps one itself; only the current version may.")
    if task.canary is not None and (task.canary.task.inputs, task.canary.task.outputs) != (task.inputs, task.outputs):
        raise RepositoryError(f"The canary of task {task.name!r} takes or gives other tensors than the current version.")


def _check_rows(model: Segment | Task) -> None:
    if model.max_batch_rows < 1:
        raise RepositoryError(f"Model {model.name!r} has max_batch_size {model.max_batch_rows}; espalier needs at least 1.")


def _check_segments(repository: Repository, task: Task, computable: Collection[str]) -> None:
    """computable: the segments whose model is there; a thousand tasks share most of theirs, and a file is looked for once."""
    for step in task.steps:
        if step.segment not in repository.segments:
            raise RepositoryError(f"Task {task.name!r} needs segment {step.segment!r}, which is not in the repository.")
        if step.segment not in computable:
            raise RepositoryError(f"Segment {step.segment!r} has no model.onnx; export the repository again.")


def _check_output_names(task: Task) -> None:
    names = [output.name for output in task.outputs]
    if task.name == ALL_TASKS or (len(names) == 1 and names != [task.name]):
        raise RepositoryError(f"Task {task.name!r} has an output named {names[0]!r}; it must be named like the task.")
    if len(names) > 1 and not all(name.startswith(f"{task.name}.") for name in names):
        raise RepositoryError(f"Task {task.name!r} has outputs named {', '.join(names)}; each must begin with '{task.name}.'.")


def _check_wiring(repository: Repository, task: Task) -> None:
    """Follow the steps from the task's inputs to its outputs: names, types and shapes must meet."""
    known = {spec.name: _type(spec) for spec in task.inputs}
    for step in task.steps:
        segment = repository.segments[step.segment]
        if len(step.inputs) != len(segment.inputs) or len(step.outputs) != len(segment.outputs):
            raise RepositoryError(f"Task {task.name!r} does not connect every input and output of segment {step.segment!r}.")
        for name, spec in zip(step.inputs, segment.inputs, strict=True):
            _check_input(task, step, name, known, spec)
        known.update({name: _type(spec) for name, spec in zip(step.outputs, segment.outputs, strict=True)})
    for output in task.outputs:
        if known.get(output.name) != _type(output):
            raise RepositoryError(f"Task {task.name!r} does not compute its output {output.name!r} ({_describe(_type(output))}).")


def _check_input(task: Task, step: Step, name: str, known: dict[str, _Type], spec: TensorSpec) -> None:
    if name not in known:
        raise RepositoryError(f"Task {task.name!r}: {step.segment!r} reads {name!r}, which nothing before it computes.")
    if known[name] != _type(spec):
        raise RepositoryError(
            f"Task {task.name!r} gives segment {step.segment!r} {_describe(known[name])}; it takes {_describe(_type(spec))}."
        )


class _Names:
    """What the tensors of tasks are. They are named by how they are computed: one name for two values would mix up the tasks' answers.

    A value is a place in what a segment gives on values, whatever tasks call them, and has a number.
    """

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, tuple[int, ...], int], int] = {}
        self._named: dict[str, int] = {}

    def check(self, task: Task, own: Collection[str] = ()) -> None:
        """Raise RepositoryError where `task` calls something else what a task before it calls so.

        own: names that this task alone gives to what it computes, as its versions do with their outputs.
        """
        inputs = {spec.name: self._number(spec.name, (), 0) for spec in task.inputs}
        known, own_named = dict(inputs), dict[str, int]()
        for step in task.steps:
            given = tuple(known[name] for name in step.inputs)
            for place, name in enumerate(step.outputs):
                known[name] = number = self._number(step.segment, given, place)
                if (own_named if name in own else self._named).setdefault(name, number) != number or name in inputs:
                    raise RepositoryError(f"Task {task.name!r} computes tensor {name!r}, which is something else already.")

    def _number(self, *value: *tuple[str, tuple[int, ...], int]) -> int:
        return self._numbers.setdefault(value, len(self._numbers))


def _check_labels(task: Task) -> None:
    if task.kind is not None:
        try:
            task.kind.check(task.output_shapes, task.labels, task.takes)
        except KindDoesNotFit as error:
            raise RepositoryError(f"Task {task.name!r} is of the kind {task.kind.word()!r}, but it {error}.") from error
    elif task.labels and [output.shape for output in task.outputs] != [(len(task.labels),)]:
        shapes = " and ".join(str(list(output.shape)) for output in task.outputs)
        raise RepositoryError(f"Task {task.name!r} has {len(task.labels)} labels for outputs of shape {shapes}.")


def _check_record(task: Task) -> None:
    if task.parity is None or task.parity.sample != SAMPLE:
        return
    expected = [len(recorded_places(prod(spec.shape_at(references_of(task.sizes))))) for spec in task.outputs]
    records = task.parity.outputs
    fits = [record is None or len(record.values) == count for record, count in zip(records, expected, strict=False)]
    if len(records) != len(expected) or not all(fits):
        raise RepositoryError(f"The recorded sample of task {task.name!r} does not fit its outputs; export the task again.")


def _check_text(task: Task) -> None:
    if task.text is not None and {*task.text.names} != {spec.name for spec in task.inputs}:
        names = " and ".join(spec.name for spec in task.inputs)
        raise RepositoryError(f"Task {task.name!r} takes {names}, and its tokenizer gives {' and '.join(task.text.names)}.")


def _check_tokenizers(repository: Repository, task: Task) -> None:
    for _, file in files_of(repository.path, task):
        if not file.is_file():
            raise RepositoryError(f"Task {task.name!r} has no {file.name}; export it again.")


def _type(spec: TensorSpec) -> _Type:
    return spec.dtype, spec.shape


def _describe(tensor: _Type) -> str:
    return f"{tensor[0]} rows of shape {list(tensor[1])}"
