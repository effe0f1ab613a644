"""What sharing saves on paper: MACs and weight bytes of a repository's tasks, shared against separate.

Convention: one multiply-add is one MAC and GFLOPs = 2 x GMACs; convolutions and matrix products count (see `exporter.graph.macs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from contract.plan import make_plan
from contract.repository import Repository


@dataclass(frozen=True)
class Cost:
    """Cost of answering one row for some tasks: MACs, and the bytes of the weights that must be loaded for it."""

    macs: int
    weight_bytes: int


def shared_cost(repository: Repository, tasks: Sequence[str]) -> Cost:
    """Return what one request for `tasks` costs when every step runs once. A stacked segment counts once per stream in MACs."""
    plan = make_plan(repository, tasks)
    macs = sum(repository.segments[step.segment].macs * len(step.inputs) for step in plan.steps)
    used = {step.segment for step in plan.steps}
    return Cost(macs, sum(repository.segments[name].weight_bytes for name in used))


def separate_cost(repository: Repository, tasks: Sequence[str]) -> Cost:
    """Return what the same request costs when every task is a network of its own."""
    segments = [repository.segments[step.segment] for task in tasks for step in repository.tasks[task].steps]
    return Cost(sum(segment.macs for segment in segments), sum(segment.weight_bytes for segment in segments))
