"""`espalier serve`."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from espalier.commands.options.engines import EngineChoice, check_engine_options
from espalier.commands.options.groups import ungroup
from espalier.commands.options.serving import Addresses, LogLines, RequestLimits, Scheduling, Segments
from espalier.commands.options.token import read_token
from espalier.next_steps import next_steps

if TYPE_CHECKING:
    from serving.server import Server


@ungroup
def serve(
    *,
    context: typer.Context,
    repo: Annotated[
        Path, typer.Argument(metavar="REPO", help="A model repository that `espalier export` wrote, or Triton's of ONNX models.")
    ],
    addresses: Addresses,
    choice: EngineChoice,
    shared_memory: Annotated[
        bool,
        typer.Option("--shared-memory", help="Let clients on this machine pass tensors in system shared memory (v2 extension)."),
    ] = False,
    log: LogLines,
    scheduling: Scheduling,
    requests: RequestLimits,
    segments: Segments,
    admin_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Whoever knows the token in it may load and unload tasks; or the variable ESPALIER_ADMIN_TOKEN. Without: nobody.",
        ),
    ] = None,
    check_samples: Annotated[
        bool,
        typer.Option(
            "--check-samples", help="Compare every task's answer at the start, too, with what was recorded at its export."
        ),
    ] = False,
    page: Annotated[
        bool,
        typer.Option(
            "--page/--no-page",
            help="A page at / on which people try tasks and watch them; docs/guides/page.md says what it tells.",
        ),
    ] = True,
    watch: Annotated[
        bool, typer.Option("--watch", help="Load what changes in the repository when it does; needs the extra `watch`.")
    ] = False,
    drain_s: Annotated[float, typer.Option(min=0, help="Seconds that requests in flight get after SIGTERM; 0: none.")] = 30.0,
) -> None:
    """Serve a repository over HTTP and gRPC (v2 protocol) until SIGTERM or Ctrl-C.

    Every task is a model that any v2 client can call; `all_tasks` answers several at once and runs the trunk once.
    Images go to POST /predict; the API is described at /docs. GET /metrics is for Prometheus; OTEL_* variables turn on traces.
    The page at / is for people: try tasks on an image or a text, and watch them.
    """
    from contract.repository.write import recover
    from espalier.figures.repository.svg import tree_svg
    from serving.server import run

    check_engine_options(context, choice.engine)
    log.set_up()
    limits, lengths = requests.limits(), scheduling.lengths
    token = read_token(admin_token_file, "--admin-token-file")
    recover(repo)
    cache = segments.cache_folder()
    options = segments.engine_options(choice.threads, scheduling, cache)
    options = replace(options, sessions=choice.on(options.sessions))
    run(
        repo,
        on_ready=None if log.log_format == "json" else partial(_announce, repo, takes_loads=token is not None, page=page),
        options=options,
        make_engine=choice.make_engine(scheduling.max_queue_rows),
        host=addresses.host,
        http_port=addresses.http_port,
        grpc_port=addresses.grpc_port,
        grace_s=drain_s,
        max_message_bytes=requests.max_message_bytes,
        max_pending_bytes=requests.max_pending_bytes,
        shared_memory=shared_memory,
        access_log=log.has_requests,
        admin_token=token,
        check_samples=check_samples,
        rows_record=None if cache is None else cache.with_name("independent.txt"),
        configs=None if cache is None else cache.with_name("configs"),
        plain=choice.is_here,
        limits=limits,
        pad_lengths=lengths,
        page=tree_svg if page else None,
        watch=watch,
        feature_cache_bytes=segments.feature_cache,
    )


def _announce(repo: Path, server: Server, *, takes_loads: bool, page: bool) -> None:
    """Say where requests are answered, and what one does next."""
    from serving.server import announce

    announce(server.http_address, server.grpc_address)
    for line in next_steps(server.tasks, server.http_address, repo, takes_loads=takes_loads, page=page):
        print(line, flush=True)
