"""Requests of more rows than go at once: asked in parts, and answered as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from contract.dtypes import Array
from contract.plan import ExecutionPlan
from serving.engines.base import Answer
from serving.errors import TooManyRows


def split(plan: ExecutionPlan, inputs: Mapping[str, Array], limit: int) -> Sequence[Mapping[str, Array]]:
    """Return `inputs` of `plan`, arrays of shape (n, ...), in parts of at most `limit` rows; 0: any number.

    Raises TooManyRows when there would have to be parts, and a segment has to see all rows together.
    """
    rows = len(next(iter(inputs.values())))
    if not limit or rows <= limit:
        return [inputs]
    if plan.coupled:
        raise TooManyRows(rows, limit, plan.coupled)
    return [{name: values[start : start + limit] for name, values in inputs.items()} for start in range(0, rows, limit)]


def join(plan: ExecutionPlan, answers: Sequence[Answer]) -> Answer:
    """Return the answers of all parts as one; an output that failed in one part has failed."""
    if len(answers) == 1:
        return answers[0]
    errors = {name: error for answer in reversed(answers) for name, error in answer.errors.items()}
    outputs = {name: np.concatenate([answer.outputs[name] for answer in answers]) for name in plan.outputs if name not in errors}
    runs = tuple(run for answer in answers for run in answer.runs)
    return Answer(outputs, runs, errors, max(answer.queue_seconds for answer in answers))
