"""The models that clients can call, and the execution plan of each: pure data, derived from a repository.

As on Triton, everything in the repository is a model: every task, `all_tasks` (one output per task; the outputs that a request names
choose the tasks), and every segment on its own. What espalier did not export is a model like any other, and no part of `all_tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from contract.plan import ExecutionPlan, PlanStep, make_plan
from contract.repository.config import ALL_TASKS, all_tasks_config, parse_text, segment_config, task_config
from contract.repository.model import Plain, Repository, Segment, Task, TensorSpec
from contract.repository.plain_config import PLATFORM
from contract.repository.unite import united_inputs
from contract.tensor_names import Names
from contract.volume import volume_of
from serving.errors import UnknownModel
from serving.free_sizes import InputLimits, limits_of_segment, limits_of_tasks
from serving.padding import PaddedOutput

_MOST_VARIANTS = 64  # several canaries at once are rare; each subset of them has a catalogue


@dataclass(frozen=True)
class Output:
    """One output of a model, with a label per class or none. task: whose it is. needs: the inputs that its task takes; None: all."""

    spec: TensorSpec
    labels: tuple[str, ...] = ()
    task: str = ""
    needs: frozenset[str] | None = None


@dataclass(frozen=True)
class Model:
    """What a client may know about a version of a model. `platform` is Triton's word for its kind; `versions`: all that answer.

    segment: the one that is all of it; "": it is made of several. plain: of a model that espalier did not export.
    limits: of the sizes and values of its inputs, where there are any. names: what its tensors are called besides, the first by metadata.
    """

    name: str
    version: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: Mapping[str, Output]
    max_batch_rows: int
    versions: tuple[str, ...]
    segment: str = ""
    plain: Plain | None = None
    limits: tuple[InputLimits, ...] = ()
    names: Names = field(default_factory=dict)

    @property
    def has_rows(self) -> bool:
        """Whether the first axis of its tensors is that of the rows; otherwise a request is one row."""
        return self.plain is None or self.plain.has_rows

    @cached_property
    def is_mixed(self) -> bool:
        """Whether its outputs need different inputs, so that a request brings those of the outputs that it asks for."""
        return any(output.needs is not None for output in self.outputs.values())

    def whole_shape(self, spec: TensorSpec) -> list[int]:
        """Return the shape of an input or output with all axes, -1: any size."""
        return [-1, *spec.shape] if self.has_rows else [*spec.shape]

    def shown(self, name: str) -> str:
        """Return what metadata calls a tensor."""
        return self.names[name][0] if name in self.names else name

    @cached_property
    def own_inputs(self) -> Mapping[str, str]:
        """Return the inputs by all that they may be called."""
        return self._own([spec.name for spec in self.inputs])

    @cached_property
    def own_outputs(self) -> Mapping[str, str]:
        """Return the outputs by all that they may be called."""
        return self._own([*self.outputs])

    def _own(self, names: Sequence[str]) -> Mapping[str, str]:
        return {called: name for name in names for called in self.names.get(name, ())} | {name: name for name in names}

    def example_inputs(self) -> tuple[TensorSpec, ...]:
        """Return the inputs as one request may have them: at the reference sizes, where these are known, else 1 for what is free."""
        known = {spec.name: spec for limit in self.limits for spec in limit.at_reference()}
        return tuple(known.get(spec.name) or replace(spec, shape=tuple(map(abs, spec.shape))) for spec in self.inputs)

    def largest_inputs(self) -> tuple[TensorSpec, ...]:
        """Return the inputs with the largest sizes that some of its outputs allow; -1 where nobody knows."""
        shapes: dict[str, list[tuple[int, ...]]] = {}
        for spec in (spec for limit in self.limits for spec in limit.at_most()):
            shapes.setdefault(spec.name, []).append(spec.shape)
        return tuple(
            replace(spec, shape=tuple(map(_most, zip(*shapes.get(spec.name, [spec.shape]), strict=True)))) for spec in self.inputs
        )


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


class Catalog:
    """The models of one repository. most_plans: how many execution plans are remembered.

    padded: of each version of a task whose texts are padded, by its name and number: its outputs.
    """

    def __init__(
        self,
        repository: Repository,
        most_plans: int = 4096,
        padded: Mapping[tuple[str, str], Mapping[str, PaddedOutput]] = MappingProxyType({}),
    ) -> None:
        self._most_plans = most_plans
        self._padded = padded
        of_tasks = (padded.get((task.name, task.version), {}) for task in repository.tasks.values())
        self._padded_outputs = {name: output for outputs in of_tasks for name, output in outputs.items()}
        self.repository = repository
        self._exported = repository.exported
        self._saved_steps = SavedSteps(self._exported)
        self.models: Mapping[str, Model] = {model.name: model for model in _models(repository)}
        self._canaries = {task.name: _version(task, task.canary.task) for task in repository.tasks.values() if task.canary}
        self.has_canaries = bool(self._canaries)
        self.outputs_of_canaries = sum(len(canary.outputs) for canary in self._canaries.values())
        self._variants: dict[frozenset[str], Catalog] = {}
        self._plans: dict[tuple[str, tuple[str, ...]], ExecutionPlan] = {}

    def with_canaries(self, names: frozenset[str]) -> Catalog:
        """Return the catalogue in which the canaries of the tasks `names` are the current versions."""
        if names not in self._variants:
            if len(self._variants) >= _MOST_VARIANTS:
                self._variants.clear()
            tasks = self.repository.tasks
            drawn = {name: task.canary.task for name, task in tasks.items() if name in names and task.canary is not None}
            chosen = {name: replace(canary, names=tasks[name].names) for name, canary in drawn.items()}
            self._variants[names] = Catalog(replace(self.repository, tasks={**tasks, **chosen}), self._most_plans, self._padded)
        return self._variants[names]

    def find(self, name: str, version: str = "") -> Model:
        """Return a model; an empty version means the current one, and a canary has its own. Raises UnknownModel."""
        model = self.models.get(name)
        if model is None:
            raise UnknownModel(name, [*self.repository.tasks, *({ALL_TASKS} & self.models.keys())])
        if version in ("", model.version):
            return model
        canary = self._canaries.get(name)
        if canary is None or version != canary.version:
            raise UnknownModel(name, model.versions, version)
        return canary

    def all_versions(self) -> Sequence[Model]:
        """Return every model, and every canary beside its task's current version."""
        return (*self.models.values(), *self._canaries.values())

    def plan(self, model: Model, outputs: Sequence[str]) -> ExecutionPlan:
        """Return how to compute `outputs` of `model`. The plan's outputs bear the names of the model's outputs."""
        asked = (model.name, tuple(outputs))
        if asked not in self._plans:
            if len(self._plans) >= self._most_plans:  # clients that ask for ever other combinations must not fill the memory
                self._plans.clear()
            self._plans[asked] = self._make_plan(model, outputs)
        return self._plans[asked]

    def saved_steps(self, model: Model, plan: ExecutionPlan) -> int:
        """Return how many runs of segments `plan`, one of `model`, saves against one plan per task."""
        return 0 if model.segment else self._saved_steps.of(plan)

    def _make_plan(self, model: Model, outputs: Sequence[str]) -> ExecutionPlan:
        if model.segment:
            inputs = tuple(spec.name for spec in model.inputs)
            segment = self.repository.segments[model.segment]
            volume = volume_of(model.inputs, segment.sizes)
            step = PlanStep(model.segment, (inputs,), (tuple(model.outputs),), segment.is_coupled, volume is not None)
            return ExecutionPlan(inputs, (step,), {name: name for name in outputs}, volume)
        return make_plan(self._exported, outputs)

    def padded_outputs(self, model: Model, outputs: Collection[str]) -> Mapping[str, PaddedOutput]:
        """Return how `outputs` of `model` are cut back that a padded request gives; none where one of them is not to be padded."""
        if not self._padded_outputs or model.segment:
            return {}
        found = {name: self._padded_outputs[name] for name in outputs if name in self._padded_outputs}
        first = next(iter(found.values()), None)
        alike = first is not None and all(output.padding == first.padding for output in found.values())
        return found if alike and len(found) == len(outputs) else {}

    def rows_per_run(self, plan: ExecutionPlan, model: Model) -> int:
        """Return the most rows that may go through `plan` at once: a segment that stacks k streams sees k times as many.

        Where the request must not be divided that is no reason to take fewer: what stacks streams takes them one by one.
        """
        segments = self.repository.segments
        limits = [segments[step.segment].max_batch_rows // (1 if plan.coupled else len(step.inputs)) for step in plan.steps]
        return max(1, min([model.max_batch_rows, *limits]))

    def segments_of(self, model: Model) -> Collection[str]:
        """Return the segments that `model`, with all of its outputs, runs."""
        tasks = self.repository.tasks
        if model.name in self.repository.segments:
            return {model.name}
        if model.name not in tasks:
            return {step.segment for task in tasks.values() for step in task.steps}
        return {step.segment for task in tasks[model.name].versions if task.version == model.version for step in task.steps}

    def config(self, model: Model) -> Any:
        """Return Triton's ModelConfig of `model`."""
        if model.plain is not None:
            return parse_text(model.plain.config, model.name)
        if model.name in self.repository.segments:
            return segment_config(self.repository.segments[model.name])
        if model.name in self.repository.tasks:
            task = self.repository.tasks[model.name]
            config = task_config(task.canary.task if task.canary and task.canary.task.version == model.version else task)
            return _renamed(config, model)
        exported = self._exported
        return all_tasks_config(exported.tasks.values(), copied=False, digest_version=exported.digest_version)


def _most(sizes: Sequence[int]) -> int:
    return -1 if -1 in sizes else max(sizes)


def _renamed(config: Any, model: Model) -> Any:
    """Return `config`, of an ensemble, with its inputs and outputs called as metadata calls them."""
    for tensor in (*config.input, *config.output):
        tensor.name = model.shown(tensor.name)
    for step in config.ensemble_scheduling.step if model.names else ():
        for tensors in (step.input_map, step.output_map):
            tensors.update({key: model.shown(name) for key, name in tensors.items()})
    return config


def served_by(catalog: Catalog, names: Iterable[str], version: str, draw: Callable[[], float]) -> Catalog:
    """Return the catalogue that answers a request for the tasks `names`: with the canaries that it drew.

    version: that the request insists on; a canary's gets the canary, "" leaves it to chance. draw: returns numbers in [0, 1).
    """
    canaries = {name: task.canary for name in names if (task := catalog.repository.tasks.get(name)) is not None}
    drawn = {
        name
        for name, canary in canaries.items()
        if canary is not None and (version == canary.task.version if version else draw() < canary.share)
    }
    return catalog.with_canaries(frozenset(drawn)) if drawn else catalog


def involved(catalog: Catalog, model: str, outputs: Iterable[str]) -> list[str]:
    """Return the tasks that a request for `outputs` (none named: all) of `model` is about."""
    if model in catalog.repository.tasks:
        return [model]
    found: Model | None = catalog.models.get(model)
    if found is None or model in catalog.repository.segments:
        return []
    wanted = set(outputs) or found.outputs.keys()
    tasks = catalog.repository.tasks.values()
    return [task.name for task in tasks if any(output.name in wanted for output in task.outputs)]


def _models(repository: Repository) -> Iterable[Model]:
    exported = repository.exported
    yield from (_segment(segment) for segment in exported.segments.values())
    yield from (_plain(task, task.plain) if task.plain else _version(task, task) for task in repository.tasks.values())
    tasks = sorted(exported.tasks.values(), key=lambda task: task.name)
    if united_inputs(tasks):  # tasks that call different inputs by one name cannot be asked together
        yield _ensemble(ALL_TASKS, tasks, "1", ("1",))


def _segment(segment: Segment) -> Model:
    outputs = {spec.name: Output(spec) for spec in segment.outputs}
    version, rows = segment.version, segment.max_batch_rows
    limits = limits_of_segment(segment)
    return Model(segment.name, version, PLATFORM, segment.inputs, outputs, rows, (version,), segment.name, limits=limits)


def _plain(task: Task, plain: Plain) -> Model:
    outputs = {spec.name: Output(spec, plain.labels.get(spec.name, ())) for spec in task.outputs}
    version, segment = task.version, task.steps[0].segment
    return Model(task.name, version, PLATFORM, task.inputs, outputs, task.max_batch_rows, (version,), segment, plain)


def _version(task: Task, version: Task) -> Model:
    """Return the model of `version`, the current one of `task` or its canary."""
    answering = (task, *([task.canary.task] if task.canary else []))
    model = _ensemble(task.name, [version], version.version, tuple(one.version for one in answering))
    return replace(model, names=task.names)


def _ensemble(name: str, tasks: Sequence[Task], version: str, versions: tuple[str, ...]) -> Model:
    inputs = united_inputs(tasks) or tasks[0].inputs
    needs = {
        task.name: frozenset(spec.name for spec in task.inputs) if len(task.inputs) < len(inputs) else None for task in tasks
    }
    return Model(
        name=name,
        version=version,
        platform="ensemble",
        inputs=inputs,
        outputs={
            output.name: Output(output, task.labels, task.name, needs[task.name]) for task in tasks for output in task.outputs
        },
        max_batch_rows=min(task.max_batch_rows for task in tasks),
        versions=versions,
        limits=limits_of_tasks(tasks),
    )


def _steps_for(task: Task, output: str) -> frozenset[int]:
    """Return the places of the steps of `task` without which `output` could not be computed."""
    wanted, needed = {output}, []
    for place, step in reversed(list(enumerate(task.steps))):
        if wanted.intersection(step.outputs):
            needed.append(place)
            wanted.update(step.inputs)
    return frozenset(needed)
