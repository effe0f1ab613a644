"""Tasks on other segments. A tensor is named by how it is computed, so that what another segment makes gets another name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from contract.repository import Step, Task


def on_segments(task: Task, segments: Mapping[str, str]) -> Task:
    """Return `task` on other segments, by the names of those that it runs; those that are not among `segments` stay."""
    kept = {spec.name for spec in task.outputs}
    names: dict[str, str] = {}
    steps = []
    for step in task.steps:
        segment = segments.get(step.segment, step.segment)
        inputs = tuple(names.get(name, name) for name in step.inputs)
        if (segment, inputs) != (step.segment, step.inputs):
            names |= {name: _name(segment, inputs, place) for place, name in enumerate(step.outputs) if name not in kept}
        steps.append(Step(segment, inputs, tuple(names.get(name, name) for name in step.outputs)))
    return replace(task, steps=tuple(steps))


def _name(segment: str, inputs: tuple[str, ...], place: int) -> str:
    told = f"{place} of {segment} on {', '.join(inputs)}"
    return f"tap-{hashlib.sha256(told.encode()).hexdigest()[:16]}"
