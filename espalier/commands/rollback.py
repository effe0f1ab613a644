"""`espalier rollback`."""

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
def rollback(
    *,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task.")],
    repo: Annotated[Path, typer.Option("--in", metavar="REPO", help="A model repository that `espalier export` wrote.")],
    servers: Servers,
) -> None:
    """Go back to the version of a task before the current one, or end its canary; have a running server follow.

    With a canary, the canary goes and the current version stays. Without one, the current and the previous version change places, so
    that a second rollback undoes the first. Nothing is exported: what is kept on disk is loaded.

    [dim]espalier rollback birds --in repo --url http://127.0.0.1:8000[/]
    """
    clients = servers.find()

    from exporter.deploy import rollback

    change = rollback(repo, task, waiting=say).changes[task]
    console.print(escape(describe_change(change)), soft_wrap=True)
    undo_hint = "" if change.before and change.before.canary else f"`espalier rollback {task} --in {repo}` undoes that."
    notify(clients, [task], "load", changed=f"{describe_versions(change.after)}.", undo_hint=undo_hint)
