"""What the page says of tasks: which there are, and what was counted of them. Pure functions; nothing that the API does not say, too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec

from contract.histogram import Histogram
from contract.kinds.labels import Labels
from contract.repository.config import ALL_TASKS
from contract.repository.model import Repository, Task
from contract.repository.unite import united_inputs
from serving.catalog import Catalog
from serving.statistics import ModelStatistics, ModelVersion

MOST_DRAWN = 200  # tasks: their tree takes a quarter of a second, that of 1,000 eight


def why_no_tree(repository: Repository) -> str:
    """Return why the tree of what espalier has exported is not drawn; "" where it is."""
    tasks = repository.exported.tasks
    if not tasks:
        return "Nothing here was exported by espalier, so there is no tree to draw."
    if len(tasks) > MOST_DRAWN:
        return f"The tree is drawn of up to {MOST_DRAWN} tasks; here are {len(tasks):,}."
    if united_inputs(tasks.values()) is None:
        return "Tasks call different inputs by one name, so that no request is for all of them, and there is no tree of one."
    return ""


def task_facts(repository: Repository) -> dict[str, Any]:
    """Return the tasks that are served, as JSON: what each takes, how people read it, which of its segments others run, too."""
    tasks = repository.tasks
    users = Counter(segment for task in tasks.values() for segment in _segments(task))
    return {"no_tree": why_no_tree(repository), "tasks": [_facts(task, users) for task in tasks.values()]}


def _facts(task: Task, users: Mapping[str, int]) -> dict[str, Any]:
    canary = task.canary
    segments = _segments(task)
    return {
        "name": task.name,
        "version": task.version,
        "canary": None if canary is None else {"version": canary.task.version, "share": canary.share},
        "takes": task.takes,
        "kind": msgspec.to_builtins(task.answers),
        "is_for_people": task.answers.is_for_people,
        "labels": list(task.labels) if isinstance(task.answers, Labels) else [],  # of which each may have a threshold
        "shared": [name for name in segments if users[name] > 1],
        "own": [name for name in segments if users[name] == 1],
    }


def _segments(task: Task) -> list[str]:
    return list(dict.fromkeys(step.segment for step in task.steps))


def task_numbers(
    catalog: Catalog, done: Mapping[ModelVersion, ModelStatistics], queued: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return what was counted of each version of each task, and of all_tasks where there is such a model, as JSON.

    done: requests of each version that was asked for. queued: rows that wait, of each model that has any.
    """
    names = (*catalog.repository.tasks, *({ALL_TASKS} & catalog.models.keys()))
    versions = [(name, version) for name in names for version in catalog.models[name].versions]
    return [_numbers(name, version, done.get((name, version), ModelStatistics()), queued) for name, version in versions]


def _numbers(name: str, version: str, done: ModelStatistics, queued: Mapping[str, int]) -> dict[str, Any]:
    return {
        "name": name,
        "version": version,
        "requests": done.successes,
        "failures": done.failures,
        "p50_ms": _milliseconds(done.duration, 0.5),
        "p95_ms": _milliseconds(done.duration, 0.95),
        "wait_p95_ms": _milliseconds(done.queue, 0.95),
        "pending": done.pending,
        "waiting_rows": queued.get(name, 0),
    }


def _milliseconds(histogram: Histogram, share: float) -> float | None:
    found = histogram.quantile(share)
    return None if found is None else round(found * 1000, 3)
