"""The servers that are told when a repository has changed: what `deploy`, `undeploy`, `rollback` and `promote` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.markup import escape

from espalier.commands.options.token import VARIABLE, read_token
from espalier.console import console, errors

if TYPE_CHECKING:
    from espalier.client import Client

_Action = Literal["load", "unload"]


@dataclass(frozen=True)
class Servers:
    """Options that name running servers."""

    url: Annotated[
        list[str] | None,
        typer.Option(
            "--url",
            metavar="SERVER",
            help="The HTTP address of a running server, which is told, such as http://127.0.0.1:8000. Several: repeat it; they are told in "
            "this order, with the same token.",
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help=f"A file with the server's admin token. Default: the environment's {VARIABLE}."
        ),
    ] = None

    def find(self) -> tuple[Client, ...]:
        """Return the servers, each once, in the order of the command line; before anything is changed.

        Raises InvalidRequest for a URL that is none, typer.BadParameter without a token, LoadsRefused, ServerUnreachable.
        """
        from serving.client import checked_url

        if not self.url:
            if self.token_file is not None:
                raise typer.BadParameter("is of use with --url only.", param_hint="--token-file")
            return ()
        checked = dict.fromkeys(map(checked_url, self.url))
        token = _require_token(self.token_file)
        from espalier.client import Client, check_servers

        servers = tuple(Client(url, token) for url in checked)
        check_servers(servers)
        return servers


def notify(servers: Sequence[Client], tasks: Sequence[str], action: _Action, *, changed: str, undo_hint: str) -> None:
    """Have `servers` load or unload `tasks`, one after the other, or say that somebody must.

    One that refuses or does not answer hinders none of the others. Exits with code 1 in the end when there was one.
    changed: what is so on disk, a sentence; undo_hint: how to undo that, a sentence.
    """
    if not servers:
        requests = " and ".join(f"/v2/repository/models/{task}/{action}" for task in tasks)
        console.print(
            f"A running server goes on as it is until it is told: with --url, or by POST {escape(requests)}.", soft_wrap=True
        )
        return
    failures = [failure for server in servers if (failure := _notify_one(server, tasks, action))]
    if not failures:
        return
    several = len(servers) > 1
    said = [f"{failure.url}: {failure.reason}" if several else failure.reason for failure in failures]
    done = len(servers) - len(failures)
    told = f"Of {len(servers)} servers {done} {'was' if done == 1 else 'were'} told." if several else ""
    again = f"To tell {'the rest' if several else 'the server'} again: {', '.join(failure.request for failure in failures)}."
    _fail(" ".join(filter(None, [*said, told, f"On disk, {changed}", undo_hint, again])))


@dataclass(frozen=True)
class _Failure:
    """A server that was not told, why, a sentence, and the first request that it has not done."""

    url: str
    reason: str
    request: str


def _notify_one(server: Client, tasks: Sequence[str], action: _Action) -> _Failure | None:
    """Have `server` load or unload `tasks` up to the first that fails; say what it does."""
    from serving.errors import RequestRefused, ServerUnreachable

    for task in tasks:
        try:
            (server.load if action == "load" else server.unload)(task)
        except (RequestRefused, ServerUnreachable) as error:
            return _Failure(server.url, str(error), f"POST {server.url}/v2/repository/models/{task}/{action}")
        done = "serves it now" if action == "load" else f"does not serve {task} any more"
        console.print(f"{escape(server.url)} {escape(done)}.", soft_wrap=True)
    return None


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
