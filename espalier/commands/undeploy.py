"""`espalier undeploy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier.commands.options.groups import ungroup
from espalier.commands.options.servers import Servers, notify
from espalier.commands.remove import print_removal
from espalier.console import say


@ungroup
def undeploy(
    *,
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="The tasks to remove.")],
    repo: Annotated[Path, typer.Option("--from", metavar="REPO", help="A model repository that `espalier export` wrote.")],
    gc: Annotated[bool, typer.Option("--gc", help="Also remove the segments that no task uses then.")] = False,
    servers: Servers,
) -> None:
    """Remove tasks from a repository, with the versions that were kept of them, and have a running server let go of them.

    As `espalier remove`, which tells no server. The other tasks stay as they are, down to the byte.

    [dim]espalier undeploy birds --from repo --url http://127.0.0.1:8000[/]
    """
    clients = servers.find()

    from exporter.remove import remove_tasks

    names = list(dict.fromkeys(tasks))
    removal = remove_tasks(repo, names, gc=gc, waiting=say)
    print_removal(repo, names, removal)
    gone = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} removed."
    notify(clients, names, "unload", changed=gone, undo_hint="Only `espalier deploy` of the models brings that back.")
