"""Separate networks for engines that run segments: tasks of one segment each, which computes the whole task."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.models.merged import write_merged
from contract.repository import Repository, Segment, Step, Task
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, segment_tensor
from contract.repository.write import model_path


def whole_networks(repository: Repository, names: Sequence[str], folder: Path) -> Repository:
    """Return the tasks `names`, which espalier has exported, on a segment each; its model is composed from theirs, below `folder`.

    It has no configurations: it is for an engine in this process. Costs are the sums of theirs.
    """
    segments, tasks = {}, {}
    for name in names:
        task = repository.tasks[name]
        segment = _segment(repository, task, f"whole-{name}")
        file = model_path(folder, segment.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_merged(repository, [name], file, as_segment=True)
        outputs = tuple(spec.name for spec in task.outputs)
        step = Step(segment.name, tuple(spec.name for spec in task.inputs), outputs)
        segments[segment.name] = segment
        tasks[name] = replace(task, steps=(step,), previous=None, canary=None)
    return replace(repository, path=folder, segments=segments, tasks=tasks)


def _segment(repository: Repository, task: Task, name: str) -> Segment:
    parts = [repository.segments[step.segment] for step in task.steps]
    return Segment(
        name=name,
        inputs=tuple(replace(spec, name=segment_tensor(SEGMENT_INPUT, place)) for place, spec in enumerate(task.inputs)),
        outputs=tuple(replace(spec, name=segment_tensor(SEGMENT_OUTPUT, place)) for place, spec in enumerate(task.outputs)),
        blocks=(0, 0),
        digest=hashlib.sha256(name.encode()).hexdigest(),
        max_batch_rows=task.max_batch_rows,
        macs=sum(part.macs for part in parts),
        weight_bytes=sum(part.weight_bytes for part in {part.name: part for part in parts}.values()),
        activation_bytes=sum(part.activation_bytes for part in parts[-1:]),
        rows="coupled" if any(part.is_coupled for part in parts) else "independent",
        sizes=task.sizes,
    )
