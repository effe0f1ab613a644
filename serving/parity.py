"""Compares what a task answers here with what its whole network answered when it was exported."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from contract.dtypes import Array
from contract.plan import ExecutionPlan, make_plan
from contract.repository.model import Repository, Task
from contract.repository.record import SAMPLE, recorded_places
from contract.repository.reference import at_reference
from contract.repository.sample import sample_inputs
from serving.engines.base import Answer, Call, Engine
from serving.errors import QueueFull, WrongAnswer
from serving.process.threads import to_thread

_WAIT_S = 0.05
_MOST_WAITS = 600  # half a minute


async def check_answers(engine: Engine, repository: Repository, tasks: Iterable[Task]) -> None:
    """Raise WrongAnswer unless each of `tasks`, and its canary, answers one row of sample input as its record says.

    Their segments are in `repository` and open in `engine`, which runs the row like a request. Without a record of the sample that
    this version makes nothing is compared. Raises EngineError when a segment fails, QueueFull when the queue is full for half a minute.
    """
    for task in _served_versions(tasks):
        if not has_record(task):
            continue
        plan = make_plan(replace(repository, tasks={task.name: task}), [task.name])
        inputs = await to_thread(sample_inputs, at_reference(task.inputs, task.sizes))
        answer = await patient_answer(engine, plan, inputs, Call(task.name, rows_per_run=1))
        for error in answer.errors.values():
            raise error
        compare(task, answer.outputs, engine.rounding)


def has_record(task: Task) -> bool:
    """Whether it is known what the whole network answers to the sample that this version makes."""
    return task.parity is not None and task.parity.sample == SAMPLE


def _served_versions(tasks: Iterable[Task]) -> Iterator[Task]:
    for task in tasks:
        yield task
        if task.canary is not None:
            yield task.canary.task


async def patient_answer(engine: Engine, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call) -> Answer:
    """Return the answer of `engine`, also when its queue is full at times: a model can be loaded under load."""
    for _ in range(_MOST_WAITS):
        try:
            return await engine.infer(plan, inputs, call)
        except QueueFull:
            await asyncio.sleep(_WAIT_S)
    return await engine.infer(plan, inputs, call)


def compare(task: Task, outputs: Mapping[str, Array], rounding: float = 0.0) -> None:
    """Raise WrongAnswer unless `outputs`, to one row of sample input, are what `task` has recorded.

    rounding: by how much they may differ at least, as of `Engine`.
    """
    assert task.parity is not None
    for spec, record in zip(task.outputs, task.parity.outputs, strict=True):
        if record is None:
            continue
        found = outputs[spec.name].reshape(-1).astype(np.float64)
        difference = float(np.abs(found[recorded_places(found.size)] - np.asarray(record.values)).max(initial=0.0))
        allowed = max(task.parity.tolerance, rounding) * record.scale
        if not difference <= allowed:  # NaN is wrong, too
            raise WrongAnswer(task.name, task.version, spec.name, difference, allowed)
