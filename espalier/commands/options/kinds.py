"""The option that says how people read what tasks answer: what `export`, `add` and `deploy` have in common."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from espalier.commands.pairs import split_pairs

if TYPE_CHECKING:
    from contract.kinds.kind import Kind

Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="TASK=KIND",
        help="What the task's answers are to people, such as classes, values or mask (docs/reference/kinds.md has all), with parameters "
        "where they are not the usual ones, as boxes:layout=yolo,score=0.4 or labels:thresholds=0.5+0.3. Repeat it. Without it, one vector "
        "is taken for classes, and all else for tensors.",
    ),
]


def parse_kinds(given: Sequence[str], tasks: Collection[str]) -> dict[str, Kind]:
    """Return kinds by the names of tasks. Raises typer.BadParameter for another form, no kind, an unknown task, a task named twice."""
    from contract.kinds.registry import parse_kind

    kinds: dict[str, Kind] = {}
    for name, kind in split_pairs(given, "TASK=KIND", "--kind", tasks).items():
        try:
            kinds[name] = parse_kind(kind)
        except ValueError as error:
            raise typer.BadParameter(f"of {name!r}: {error}.", param_hint="--kind") from error
    return kinds
