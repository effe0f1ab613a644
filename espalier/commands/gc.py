"""`espalier gc`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from contract.units import human_bytes
from espalier.console import console, say


def gc(
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="A model repository that `espalier export` wrote.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    drop_previous: Annotated[
        bool, typer.Option("--drop-previous", help="Also let go of the versions that are kept for `espalier rollback`.")
    ] = False,
) -> None:
    """Remove the segments of a repository that no task refers to, as `espalier remove` leaves them.

    A version that is kept for a rollback and a canary count as the task's. A server that is running goes on with what it has loaded.
    """
    from exporter.gc import collect_garbage

    unused = collect_garbage(repo, dry_run=dry_run, drop_previous=drop_previous, waiting=say)
    for name, count in unused.items():
        console.print(f"{escape(name)} [dim]{human_bytes(count)}[/]", soft_wrap=True)
    segments = f"{len(unused)} {'segment' if len(unused) == 1 else 'segments'}"
    total = human_bytes(sum(unused.values()))
    if drop_previous and not dry_run:
        console.print("No version is kept for a rollback any more; canaries stay.")
    if not unused:
        console.print("Every segment is used by a task; there is nothing to remove.")
    elif dry_run:
        console.print(f"Would remove {segments} and free {total}.")
    else:
        console.print(f"Removed {segments} and freed {total}.")
