"""`espalier triton`: a real Triton on this machine, without Docker."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from espalier.console import console, say

app = typer.Typer(help="Run a real Triton server on this machine, without Docker.", no_args_is_help=True)


class _ModelControl(StrEnum):
    """Which models are loaded, and when."""

    none = "none"
    explicit = "explicit"
    poll = "poll"


@app.command()
def up(
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="A model repository that `espalier export` wrote.")],
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for HTTP; 0: any free one.")] = 0,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for gRPC; 0: any free one.")] = 0,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for Prometheus; 0: any free one.")] = 0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each model; by default one, since the models work side by side.")
    ] = None,
    model_control: Annotated[
        _ModelControl,
        typer.Option(
            help="none: load all at the start; explicit: those of --load, and what clients ask for; poll: follow the disk."
        ),
    ] = _ModelControl.none,
    load: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="With explicit: load this task, or all_tasks, with its segments; repeatable."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Leave out Triton's log.")] = False,
) -> None:
    """Serve a repository with Triton 24.10 on the loopback until SIGTERM or Ctrl-C. The first time, it is downloaded.

    The server is NVIDIA's, from the wheel nvidia-pytriton; it needs no GPU. Its ONNX Runtime backend is ours, a process per segment of
    some 70 MB, because the wheel has none: for the native one, give the same folder to the container, whose command is printed.

    [dim]espalier triton up repo --http-port 8000 --grpc-port 8001[/]
    """
    from contract.repository import read_repository
    from contract.repository.write import recover
    from serving.catalog import Catalog
    from serving.local_triton.command import TritonOptions, docker_command
    from serving.local_triton.environment import set_up
    from serving.local_triton.local import LocalTriton, Signalled, run_until_signalled

    if load and model_control is not _ModelControl.explicit:
        raise typer.BadParameter("it goes with --model-control explicit only", param_hint="--load")
    recover(repo)
    catalog = Catalog(read_repository(repo))
    for name in load or ():
        catalog.find(name)  # Triton would only say that it failed to load all models
    options = TritonOptions(http_port, grpc_port, metrics_port, threads, model_control.value, tuple(load or ()))
    console.print("The same repository in NVIDIA's container, with its native backend:", style="dim")
    console.print(escape(docker_command(repo, options)), soft_wrap=True, highlight=False)
    triton = LocalTriton(repo, options, set_up(say=say), log=(lambda line: None) if quiet else _pass_on)

    def announce() -> None:
        console.print(
            f"Triton serves {escape(str(repo))} at {triton.http_url} and {triton.grpc_url}, its metrics at "
            f"http://{triton.addresses.metrics}/metrics",
            soft_wrap=True,
            highlight=False,
        )

    try:
        run_until_signalled(triton, announce)
    except Signalled as signalled:
        raise typer.Exit(128 + signalled.number) from None


@app.command()
def setup() -> None:
    """Download what `espalier triton up` runs, into ~/.cache/espalier/triton, and say where it is. Does nothing when it is there.

    About 95 MB, 300 MB on disk, once per user. pip fetches it: its own configuration (PIP_INDEX_URL, pip.conf) says from where.
    """
    from serving.local_triton.environment import set_up

    console.print(escape(str(set_up(say=say).folder)), soft_wrap=True, highlight=False)


def _pass_on(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
