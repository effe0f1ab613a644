"""`espalier remove`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from contract.units import human_bytes
from espalier.console import console, say

if TYPE_CHECKING:
    from exporter.remove import Removal


def remove(
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="A model repository that `espalier export` wrote.")],
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="The tasks to remove.")],
    gc: Annotated[bool, typer.Option("--gc", help="Also remove the segments that no task uses then.")] = False,
) -> None:
    """Remove tasks from a repository. The other tasks stay as they are, down to the byte.

    The segments stay, too, until `espalier gc`. A server that is running goes on with what it has loaded.
    """
    from exporter.remove import remove_tasks

    removal = remove_tasks(repo, tasks, gc=gc, waiting=say)
    print_removal(repo, tasks, removal)


def print_removal(repo: Path, tasks: list[str], removal: Removal) -> None:
    """Say what a removal left, and what could be freed."""
    left = ", ".join(removal.repository.tasks)
    console.print(f"Removed {escape(', '.join(dict.fromkeys(tasks)))}; the repository holds {escape(left)}.", soft_wrap=True)
    if not removal.unused:
        return
    total = human_bytes(sum(removal.unused.values()))
    one = len(removal.unused) == 1
    segments = "1 segment" if one else f"{len(removal.unused)} segments"
    if removal.collected:
        console.print(f"Removed {segments} that no task uses, and freed {total}.")
        return
    console.print(
        f"{segments} {'is' if one else 'are'} not used any more; free {total} with: espalier gc {escape(str(repo))}",
        soft_wrap=True,
    )
