"""A repository with segments in int8 as it would be in fp32: what comes is compared with that, and shares with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from contract.repository import Repository, Task
from contract.repository.model import FP32_FOLDER
from contract.repository.tokenizers import tokenizer_files
from contract.repository.write import link_tree, write_all_tasks, write_models
from exporter.precision.renamed import on_segments


def has_int8(repository: Repository) -> bool:
    """Whether a segment of `repository` is in int8, as espalier made it."""
    return any(segment.stands_for for segment in repository.segments.values())


def original(repository: Repository, task: Task) -> Task:
    """Return `task`, one version of a task of `repository`, on the segments in fp32 that its own stand for.

    What was recorded of its answers goes with the segments in int8.
    """
    names = {name: segment.stands_for for name, segment in repository.segments.items() if segment.stands_for}
    changed = on_segments(task, names)
    return task if changed.steps == task.steps else replace(changed, parity=None)


def with_versions(task: Task, current: Task, previous: Task | None, canary: Task | None) -> Task:
    """Return `task` with these versions in the place of its own."""
    kept = replace(task.canary, task=canary) if task.canary is not None and canary is not None else None
    return replace(current, previous=previous, canary=kept, last_version=task.last_version)


def write_originals(repository: Repository, folder: Path) -> Repository:
    """Write into the empty `folder`, by links where that can be, what `repository` is in fp32, and return it. Raises OSError."""
    for segment in repository.segments.values():
        source, target = repository.path / segment.name, folder / (segment.stands_for or segment.name)
        if not target.exists():
            link_tree(source / FP32_FOLDER if segment.stands_for else source, target)
    tasks = {}
    for name, task in repository.tasks.items():
        versions = [task, task.previous, task.canary.task if task.canary else None]
        tasks[name] = with_versions(task, *(version and original(repository, version) for version in versions))  # type: ignore[arg-type]
    write_models(folder, {}, tasks, tokenizer_files(repository))
    return write_all_tasks(
        folder, tasks.values(), repository.cuts_left_out, repository.cut_rule, repository.not_shared, repository.origin
    )
