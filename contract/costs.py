"""What sharing saves on paper: MACs and weight bytes of a repository's tasks, shared against separate.

Convention: one multiply-add is one MAC and GFLOPs = 2 x GMACs; convolutions and matrix products count (see `exporter.graph.macs`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
    return Cost(macs, sum(repository.segments[name].weight_bytes for name in used) - bytes_in_common(repository, used))


def bytes_in_common(repository: Repository, segments: Collection[str]) -> int:
    """Return how many bytes of weights `segments` would hold beyond what they do, if each had its own alone."""
    return sum(sum(used) - max(used) for used in bytes_in_files(repository, segments).values())


def bytes_in_files(repository: Repository, segments: Collection[str]) -> dict[str, list[int]]:
    """Return, by the names of data files that are linked, how many bytes of it each of `segments` uses that uses it."""
    found: dict[str, list[int]] = {}
    for name in segments:
        for file, count in repository.segments[name].weight_files.items():
            found.setdefault(file, []).append(count)
    return found


def separate_cost(repository: Repository, tasks: Sequence[str]) -> Cost:
    """Return what the same request costs when every task is a network of its own."""
    segments = [repository.segments[step.segment] for task in tasks for step in repository.tasks[task].steps]
    return Cost(sum(segment.macs for segment in segments), sum(segment.weight_bytes for segment in segments))
