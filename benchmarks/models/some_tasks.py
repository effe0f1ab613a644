"""A part of a repository; without torch, for processes whose memory is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from contract.repository import Repository


def only_tasks(repository: Repository, names: Sequence[str]) -> Repository:
    """Return the repository as it would be with the tasks `names` alone."""
    tasks = {name: repository.tasks[name] for name in names}
    used = {step.segment for task in tasks.values() for step in task.steps}
    segments = {name: segment for name, segment in repository.segments.items() if name in used}
    return replace(repository, tasks=tasks, segments=segments)
