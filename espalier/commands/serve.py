"""`espalier serve`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class LogFormat(StrEnum):
    """How log lines are written."""

    console = "console"
    json = "json"


class LogLevel(StrEnum):
    """The least that is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


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
    log_format: Annotated[LogFormat, typer.Option(help="Log lines for people, or one JSON object a line.")] = LogFormat.console,
    log_level: Annotated[LogLevel, typer.Option(help="The least that is logged.")] = LogLevel.info,
    access_log: Annotated[
        bool | None,
        typer.Option("--access-log/--no-access-log", help="A log line per request. By default with --log-format json only."),
    ] = None,
) -> None:
    """Serve a repository over HTTP and gRPC (v2 protocol) with the embedded engine, until SIGTERM or Ctrl-C.

    Every task is a model that any v2 client can call; `all_tasks` answers several at once and runs the trunk once.
    Images go to POST /predict; the API is described at /docs. GET /metrics is for Prometheus; OTEL_* variables turn on traces.
    """
    from exporter.aside import recover
    from serving.observe.logs import set_up_logging
    from serving.server import run

    set_up_logging(log_format, log_level)
    recover(repo)
    run(
        repo,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        threads=threads,
        shared_memory=shared_memory,
        access_log=log_format is LogFormat.json if access_log is None else access_log,
    )
