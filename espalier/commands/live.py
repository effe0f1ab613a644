"""The server that is told when a repository has changed: what `deploy`, `undeploy`, `rollback` and `promote` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from rich.markup import escape

from espalier.commands.token import VARIABLE, read_token
from espalier.console import console, errors

Url = Annotated[
    str | None,
    typer.Option(
        "--url", metavar="SERVER", help="The HTTP address of a running server, which is told, such as http://127.0.0.1:8000."
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help=f"A file with the server's admin token. Default: the environment's {VARIABLE}."
    ),
]


@dataclass(frozen=True)
class LiveServer:
    """A running server and the token that lets it be told what to load."""

    url: str
    token: str


def find_server(url: str | None, token_file: Path | None) -> LiveServer | None:
    """Return the server that the command line names, None if it names none; before anything is changed.

    Raises InvalidRequest for a `url` that is none, typer.BadParameter without a token.
    """
    from serving.client import checked_url

    if url is None:
        if token_file is not None:
            raise typer.BadParameter("is of use with --url only.", param_hint="--token-file")
        return None
    return LiveServer(checked_url(url), _require_token(token_file))


def tell(
    server: LiveServer | None, tasks: Sequence[str], action: Literal["load", "unload"], *, changed: str, way_back: str
) -> None:
    """Have `server` load or unload `tasks`, or say that somebody must. Exits with code 1 where the server does not.

    changed: what is so on disk, a sentence; way_back: how to undo that, a sentence.
    """
    from serving.client import control_model
    from serving.errors import RequestRefused, ServerUnreachable

    if server is None:
        requests = " and ".join(f"/v2/repository/models/{task}/{action}" for task in tasks)
        console.print(
            f"A running server goes on as it is until it is told: with --url, or by POST {escape(requests)}.", soft_wrap=True
        )
        return
    for task in tasks:
        try:
            control_model(server.url, task, action, server.token)
        except (RequestRefused, ServerUnreachable) as error:
            request = f"POST {server.url}/v2/repository/models/{task}/{action}"
            _fail(f"{error} On disk, {changed} {way_back} To tell the server again: {request}.")
        done = "serves it now" if action == "load" else f"does not serve {task} any more"
        console.print(f"{escape(server.url)} {escape(done)}.", soft_wrap=True)


def _require_token(file: Path | None) -> str:
    token = read_token(file, "--token-file")
    if token is None:
        raise typer.BadParameter(
            f"the server wants its admin token: give a file that holds it with --token-file, or set {VARIABLE}.",
            param_hint=VARIABLE,
        )
    return token


def _fail(sentence: str) -> NoReturn:
    errors.print(f"[bold red]Error:[/] {escape(sentence)}", soft_wrap=True)
    raise typer.Exit(1)
