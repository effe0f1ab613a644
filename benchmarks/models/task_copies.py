"""Repositories of very many tasks: copies of a few exported ones, each with weights of its own, without exporting each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from onnx import numpy_helper

from benchmarks.models.segment_model import load_whole
from contract.repository import Repository, Segment, Task, TensorSpec
from contract.repository.write import Change, changed, model_path, write_models

_NOISE = 0.01  # of each weight


@dataclass(frozen=True)
class Copies:
    """How many tasks are to be like one that is there, and what they are called: name-0000, name-0001, ..."""

    name: str
    count: int


def copy_tasks(
    path: Path, wanted: Mapping[str, Copies], progress: Callable[[str, int, int], None] = lambda what, done, total: None
) -> Repository:
    """Let the repository at `path` hold, instead of its tasks, the copies that are `wanted` of some of them.

    A segment that the exporter has named after its task is written anew for each copy, with 1 % of noise on its weights; all others (the
    trunk, what is shared) stay as they are. Raises what `contract.repository.write.changed` does.
    """
    with changed(path) as change:
        templates = {name: change.repository.tasks[name] for name in wanted}
        for segment in {step.segment for task in templates.values() for step in task.steps if not _is_own(task, step.segment)}:
            change.keep(segment)
        tasks: dict[str, Task] = {}
        total = sum(copies.count for copies in wanted.values())
        for template, copies in wanted.items():
            for index in range(copies.count):
                progress("Writing tasks", len(tasks), total)
                name = f"{copies.name}-{index:04}"
                tasks[name] = _copy(change, templates[template], name, seed=len(tasks))
        repository = change.write_all_tasks(tasks.values())
    return replace(repository, path=path)


def _is_own(task: Task, segment: str) -> bool:
    return segment.startswith(f"{task.name}-")


def _copy(change: Change, template: Task, name: str, seed: int) -> Task:
    """Write a task like `template`, and its own segments, into the folder of the change."""
    generator = np.random.default_rng(seed)
    segments: dict[str, Segment] = {}
    renamed = {template.outputs[0].name: name}  # tensors are named by how they are computed
    steps = []
    for step in template.steps:
        segment = step.segment
        if _is_own(template, segment):
            copied = _copy_segment(change, segment, name, generator)
            segments[segment], segment = copied, copied.name
        if segment != step.segment or any(tensor in renamed for tensor in step.inputs):
            renamed.update({tensor: f"{tensor}-{name}" for tensor in step.outputs if tensor not in renamed})
        inputs, outputs = (tuple(renamed.get(tensor, tensor) for tensor in tensors) for tensors in (step.inputs, step.outputs))
        steps.append(replace(step, segment=segment, inputs=inputs, outputs=outputs))
    output = TensorSpec(name, template.outputs[0].dtype, template.outputs[0].shape)
    # What the template answers is no record of what a network with other weights answers.
    task = replace(template, name=name, steps=tuple(steps), outputs=(output,), parity=None)
    write_models(change.folder, {segment.name: segment for segment in segments.values()}, {name: task})
    return task


def _copy_segment(change: Change, segment: str, task: str, generator: np.random.Generator) -> Segment:
    model = load_whole(change.repository.model_file(segment))
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype == np.float32:
            noise = generator.standard_normal(values.shape, dtype=np.float32)
            weight.CopyFrom(numpy_helper.from_array(values * (1 + _NOISE * noise), weight.name))
    content = model.SerializeToString()
    digest = hashlib.sha256(content).hexdigest()
    description = change.repository.segments[segment]
    name = f"{task}-{description.blocks[0]:02d}-{description.blocks[1]:02d}-{digest[:8]}"
    model_path(change.folder, name).write_bytes(content)
    return replace(description, name=name, digest=digest, weight_files={})
