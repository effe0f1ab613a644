"""Which version of a task answers a request: the current one, or for a share of the requests its canary."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from serving.catalog import Catalog, Model


def served_by(catalog: Catalog, names: Iterable[str], version: str, draw: Callable[[], float]) -> Catalog:
    """Return the catalogue that answers a request for the tasks `names`: with the canaries that it drew.

    version: that the request insists on; a canary's gets the canary, "" leaves it to chance. draw: returns numbers in [0, 1).
    """
    canaries = {name: task.canary for name in names if (task := catalog.repository.tasks.get(name)) is not None}
    drawn = {
        name
        for name, canary in canaries.items()
        if canary is not None and (version == canary.task.version if version else draw() < canary.share)
    }
    return catalog.with_canaries(frozenset(drawn)) if drawn else catalog


def involved(catalog: Catalog, model: str, outputs: Iterable[str]) -> list[str]:
    """Return the tasks that a request for `outputs` (none named: all) of `model` is about."""
    if model in catalog.repository.tasks:
        return [model]
    found: Model | None = catalog.models.get(model)
    if found is None or model in catalog.repository.segments:
        return []
    wanted = set(outputs) or found.outputs.keys()
    tasks = catalog.repository.tasks.values()
    return [task.name for task in tasks if any(output.name in wanted for output in task.outputs)]
