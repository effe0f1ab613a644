"""`espalier deploy`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from espalier.commands.options.groups import ungroup
from espalier.commands.options.kinds import Kinds
from espalier.commands.options.precision import Precise, print_precision
from espalier.commands.options.preprocessing import Preprocessings
from espalier.commands.options.reports import (
    describe_change,
    describe_inherited,
    describe_versions,
    print_answers,
    print_missed,
    print_not_shared,
    print_remarks,
    print_snap,
    print_stored,
    print_texts,
)
from espalier.commands.options.servers import Servers, notify
from espalier.commands.options.task_models import Backbone, Coupled, InputNames, Inputs, Snap, open_named
from espalier.commands.options.tokenizers import TokenizerFiles
from espalier.console import console, loading, progress_bars, say

if TYPE_CHECKING:
    from exporter.deploy import Deployment, VersionChange


@ungroup
def deploy(
    *,
    task_model: Annotated[
        str, typer.Argument(metavar="[NAME=]MODEL", help="The task's model; without a name, the task is named like its file.")
    ],
    repo: Annotated[Path, typer.Option("--to", metavar="REPO", help="A model repository that `espalier export` wrote.")],
    name: Annotated[str | None, typer.Option(help="The task's name, if MODEL is given alone.")] = None,
    backbone: Backbone = None,
    tokenizer: TokenizerFiles = None,
    inputs: Inputs,
    input_names: InputNames = None,
    kind: Kinds = None,
    preprocessing: Preprocessings = None,
    canary: Annotated[
        str | None,
        typer.Option(metavar="SHARE", help="Keep the current version and give this one a share of the requests, such as 5%."),
    ] = None,
    coupled: Coupled = False,
    snap: Snap = None,
    precise: Precise,
    servers: Servers,
) -> None:
    """Add a task to a repository, or replace it, and have a running server switch to it.

    The old version is kept: `espalier rollback` goes back to it without an export. Every segment that is there stays as it is. For
    what MODEL may be, see `espalier export --help`. Deploying what is current already changes nothing and tells the server again.

    [dim]espalier deploy birds=birds.safetensors --to repo --canary 5% --url http://127.0.0.1:8000[/]
    """
    images = inputs.options()
    share = None if canary is None else _parse_share(canary)
    task, model = _parse_task_model(task_model, name)
    clients = servers.find()

    with loading():
        from exporter.deploy import deploy

    with progress_bars() as report:
        given = (tokenizer or (), input_names or (), kind or (), preprocessing or ())
        sources = open_named(backbone, {task: model}, images, *given, repo=repo)
        precision = precise.options([task])
        deployment = deploy(
            repo, sources, canary=share, coupled=coupled, snap=snap, precision=precision, progress=report, waiting=say
        )
    change = deployment.changes[task]
    console.print(escape(describe_change(change)), soft_wrap=True)
    _print_sharing(deployment, task, repo)
    notify(clients, [task], "load", changed=f"{describe_versions(change.after)}.", undo_hint=_undo_hint(change, repo))


def _parse_share(text: str) -> float:
    """Return "5%" or "0.05" as 0.05. Raises typer.BadParameter unless it is more than 0 and less than 1."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise typer.BadParameter(
            f"{text!r} is no share of the requests; give more than 0% and less than 100%, such as 5%.", param_hint="--canary"
        )
    return share


def _parse_task_model(text: str, name: str | None) -> tuple[str, str]:
    """Return the task's name and its model from "NAME=MODEL" or "MODEL". Raises typer.BadParameter, and BadModel for no model."""
    from contract.references import model_name
    from exporter.sources.references import parse_reference

    named, separator, model = text.partition("=")
    if name is not None:
        return name, text
    if separator and named and model and not Path(text).exists():
        return named, model
    reference = parse_reference(text)
    file = reference.folder or reference.file
    if file is None:
        raise typer.BadParameter(f"{text!r} is no file that a task could be named like; give NAME={text}.", param_hint="MODEL")
    return model_name(file), text


def _print_sharing(deployment: Deployment, task: str, repo: Path) -> None:
    from contract.repository.not_shared import BACKBONE

    added = deployment.added
    if added is None:
        return
    for name in (task, BACKBONE):
        if name in added.remarks:
            console.print(f"[yellow]{escape(name)}[/] {escape(added.remarks[name])}", soft_wrap=True)
    print_remarks(added.row_remarks)
    print_snap(added)
    if task in added.inherited:
        console.print(f"[yellow]{escape(describe_inherited(added.before[task], added.inherited[task]))}[/]", soft_wrap=True)
    now = deployment.changes[task].after
    print_texts([now.canary.task if now.canary else now])
    print_answers([now.canary.task if now.canary else now])
    print_precision(added.precision)
    print_missed(repo, {task: added.missed[task]})
    if added.plan.several_shapes:
        console.print(f"[yellow]Several shapes:[/] {escape(added.plan.several_shapes)}", soft_wrap=True)
    print_not_shared(one for one in added.repository.not_shared if task in one.tasks)
    print_stored(added.repository, added.stored)
    segments = f"{len(added.new)} new {'segment' if len(added.new) == 1 else 'segments'}"
    console.print(f"{segments}, {len(added.kept)} kept as they were.")


def _undo_hint(change: VersionChange, repo: Path) -> str:
    if change.before == change.after:
        return ""
    if change.before is None:
        return f"`espalier undeploy {change.after.name} --from {repo}` removes it."
    return f"`espalier rollback {change.after.name} --in {repo}` goes back."
