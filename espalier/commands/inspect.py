"""`espalier inspect`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from espalier.console import console


def inspect(
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="A model repository that `espalier export` wrote.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """Show a repository: the tree of trunk and branches, each segment's cost, and what sharing saves."""
    from espalier.tree import repository_tree, savings_table, segments_table
    from exporter.aside import recover
    from serving.repository import read_repository

    recover(repo)
    repository = read_repository(repo)
    if as_json:
        print(json.dumps(_as_data(repository), indent=2))
        return
    console.print(repository_tree(repository))
    console.print(segments_table(repository))
    console.print(savings_table(repository))


def _as_data(repository: Any) -> dict[str, Any]:
    from benchmarks.flops import separate_cost, shared_cost

    names = list(repository.tasks)
    return {
        "segments": {name: dataclasses.asdict(segment) for name, segment in repository.segments.items()},
        "tasks": {name: dataclasses.asdict(task) for name, task in repository.tasks.items()},
        "shared": dataclasses.asdict(shared_cost(repository, names)),
        "separate": dataclasses.asdict(separate_cost(repository, names)),
    }
