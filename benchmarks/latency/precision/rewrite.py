"""Writes a repository with other models in its segments."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

from onnx import ModelProto, helper

from benchmarks.models.segment_model import load_whole
from benchmarks.models.separate import open_network
from contract.dtypes import Array
from contract.plan import PlanStep, make_plan
from contract.repository import Repository, Segment, Task
from contract.repository.model import SEGMENT_INPUT, SEGMENT_OUTPUT, segment_tensor
from contract.repository.write import model_path, write_configs, written

Feed = Mapping[str, Array]  # one run of a segment: rows by input name
_Convert = Callable[[ModelProto, Sequence[Feed]], ModelProto]  # what a segment takes beside its model
_STREAMS = 2  # of a segment that several tasks run on inputs of their own, to calibrate it with


def rewritten(repository: Repository, rows: Array, out: Path, precision: str, convert: _Convert) -> Repository:
    """Write `repository` to the folder `out` with the model of each segment converted, and return it.

    rows: uint8 (n, height, width, 3), what the tasks take as their only input; `convert` is told what becomes of them in front of each
    segment. Tasks keep their names; segments get new names and digests. Recorded samples and kept versions of tasks are left out.
    """
    segments: dict[str, Segment] = {}
    with written(out, force=False) as folder:
        for name, feeds in calibration(repository, rows):
            model = convert(load_whole(repository.model_file(name)), feeds)
            segments[name] = _write(repository.segments[name], model, folder)
        tasks = {name: _moved(task, segments, precision) for name, task in repository.tasks.items()}
        result = write_configs(
            folder, {segment.name: segment for segment in segments.values()}, tasks, repository.cuts_left_out, repository.cut_rule
        )
    return replace(result, path=out)


def calibration(repository: Repository, rows: Array) -> Iterator[tuple[str, list[Feed]]]:
    """Yield each segment with what it takes when all tasks are asked for `rows`: a feed for each of its first streams."""
    plan = make_plan(repository, list(repository.tasks))
    values: dict[str, Array] = {plan.inputs[0]: rows}
    for step in plan.steps:
        feeds: list[Feed] = [
            {segment_tensor(SEGMENT_INPUT, index): values[name] for index, name in enumerate(names)} for names in step.inputs
        ]
        _run(repository.model_file(step.segment), step, feeds, values)
        yield step.segment, feeds[:_STREAMS]


def _run(file: Path, step: PlanStep, feeds: Sequence[Feed], values: dict[str, Array]) -> None:
    session = open_network(file)
    for feed, names in zip(feeds, step.outputs, strict=True):
        wanted = [segment_tensor(SEGMENT_OUTPUT, index) for index in range(len(names))]
        values.update(zip(names, session.run(wanted, dict(feed)), strict=True))


def _write(segment: Segment, model: ModelProto, folder: Path) -> Segment:
    content = model.SerializeToString(deterministic=True)
    digest = hashlib.sha256(content).hexdigest()
    name = f"{segment.name.rpartition('-')[0]}-{digest[:8]}"
    model_path(folder, name).write_bytes(content)
    return replace(segment, name=name, digest=digest, weight_bytes=weight_bytes(model), version="1", weight_files={})


def weight_bytes(model: ModelProto) -> int:
    """Return the size of the model's weights."""
    return sum(
        prod(weight.dims) * helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize for weight in model.graph.initializer
    )


def _moved(task: Task, segments: Mapping[str, Segment], precision: str) -> Task:
    steps = tuple(replace(step, segment=segments[step.segment].name) for step in task.steps)
    provenance = {**task.provenance, "precision": precision}
    return replace(task, steps=steps, provenance=provenance, version="1", previous=None, canary=None, parity=None)
