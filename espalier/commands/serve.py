"""`espalier serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="A model repository that `espalier export` wrote.")],
    host: Annotated[
        str, typer.Option(help="The address to listen on. Anything but the loopback is reachable by others.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for HTTP; 0: any free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for gRPC; 0: any free one.")] = 8001,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the engine; by default as many as this process has cores.")
    ] = None,
    shared_memory: Annotated[
        bool,
        typer.Option("--shared-memory", help="Let clients on this machine pass tensors in system shared memory (v2 extension)."),
    ] = False,
) -> None:
    """Serve a repository over HTTP and gRPC (v2 protocol) with the embedded engine, until SIGTERM or Ctrl-C.

    Every task is a model that any v2 client can call; `all_tasks` answers several at once and runs the trunk once.
    Images go to POST /predict; the API is described at /docs.
    """
    from exporter.aside import recover
    from serving.server import run

    recover(repo)
    run(repo, host=host, http_port=http_port, grpc_port=grpc_port, threads=threads, shared_memory=shared_memory)
