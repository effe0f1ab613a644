"""What the command line takes and says of networks whose rows affect each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from espalier.console import console

if TYPE_CHECKING:
    from contract.repository import Repository

Coupled = Annotated[
    bool,
    typer.Option(
        "--coupled",
        help="Take networks in which the answer to a row depends on the other rows of its batch, too. Each request is then a run of its "
        "own where that is so, without batching.",
    ),
]


def print_remarks(remarks: Iterable[str]) -> None:
    """Print what an export says of the rows of segments, a line each."""
    for remark in remarks:
        console.print(f"[yellow]Rows:[/] {escape(remark)}", soft_wrap=True)


def describe_rows(repository: Repository) -> list[str]:
    """Return one line for segments whose rows affect each other and one for those that nobody has checked, where there are any."""
    coupled, unchecked = (
        [name for name, segment in repository.segments.items() if segment.rows == word] for word in ("coupled", "")
    )
    lines = []
    if coupled:
        lines.append(f"Rows affect each other, so that one request is one run: {', '.join(coupled)}")
    if unchecked:
        lines.append(f"Never checked whether rows affect each other: {', '.join(unchecked)}; an export anew checks it")
    return lines
