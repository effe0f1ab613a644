"""`espalier promote`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from espalier.commands.options.groups import ungroup
from espalier.commands.options.reports import describe_change, describe_versions
from espalier.commands.options.servers import Servers, notify
from espalier.console import console, say


@ungroup
def promote(
    *,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task.")],
    repo: Annotated[Path, typer.Option("--in", metavar="REPO", help="A model repository that `espalier export` wrote.")],
    servers: Servers,
) -> None:
    """Let the canary of a task become its current version; have a running server follow.

    The version that was current is kept for `espalier rollback`.

    [dim]espalier promote birds --in repo --url http://127.0.0.1:8000[/]
    """
    clients = servers.find()

    from exporter.deploy import promote

    change = promote(repo, task, waiting=say).changes[task]
    console.print(escape(describe_change(change)), soft_wrap=True)
    undo_hint = f"`espalier rollback {task} --in {repo}` goes back."
    notify(clients, [task], "load", changed=f"{describe_versions(change.after)}.", undo_hint=undo_hint)
