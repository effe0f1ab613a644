"""`espalier serve`."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from espalier.commands.options.engines import (
    EngineKind,
    EngineOption,
    TritonSendFiles,
    TritonSharedMemory,
    TritonUrl,
    TritonWait,
    check_engine_options,
    triton_engine,
)
from espalier.commands.options.sizes import parse_limit, parse_size
from espalier.commands.options.token import read_token


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
    context: typer.Context,
    repo: Annotated[
        Path, typer.Argument(metavar="REPO", help="A model repository that `espalier export` wrote, or Triton's of ONNX models.")
    ],
    host: Annotated[
        str, typer.Option(help="The address to listen on. Anything but the loopback is reachable by others.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for HTTP; 0: any free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for gRPC; 0: any free one.")] = 8001,
    engine: EngineOption = EngineKind.embedded,
    triton_url: TritonUrl = None,
    triton_send_files: TritonSendFiles = False,
    triton_shared_memory: TritonSharedMemory = False,
    triton_wait_s: TritonWait = 30.0,
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
    instances: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at a time; the threads are shared out among them. By default one with all threads, or where several wait, as many "
            "as there are threads.",
        ),
    ] = None,
    max_batch_rows: Annotated[
        int | None, typer.Option(min=1, help="The most rows of a run; by default as many as are best on this machine.")
    ] = None,
    max_queue_rows: Annotated[
        int, typer.Option(min=1, help="Rows that may wait, of which each model has its share; more are refused (429).")
    ] = 1024,
    max_pending_bytes: Annotated[
        int | None,
        typer.Option(
            parser=parse_limit,
            metavar="SIZE",
            help="Bytes of requests that are not answered yet, beyond which more are refused (429); 0: no limit. By default a quarter "
            "of the memory, 4 GiB at most.",
        ),
    ] = None,
    max_message_bytes: Annotated[
        int | None,
        typer.Option(
            parser=parse_size,
            metavar="SIZE",
            help="Bytes of a gRPC message, not compressed. By default as many as 1,024 rows of any model take, at least 4 MiB and at "
            "most 24 MiB; give more where clients or models that are deployed later need it.",
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another value for a limit on connections, messages or images, such as headers=64 or image_bytes=8MiB; may be given "
            "several times. docs/limits.md has the names.",
        ),
    ] = None,
    learn_rows: Annotated[
        bool, typer.Option("--learn-rows/--no-learn-rows", help="Find out at the start how many rows are best for each segment.")
    ] = True,
    spin: Annotated[
        bool,
        typer.Option(
            "--spin/--no-spin",
            help="Let threads of a run wait for each other awake, if there is a core for each. --no-spin where others need the cores.",
        ),
    ] = True,
    provider: Annotated[
        str, typer.Option(help="What computes: auto (a GPU if CUDA works here, else the CPU), cpu, cuda, tensorrt or openvino.")
    ] = "auto",
    memory_limit: Annotated[
        int | None,
        typer.Option(
            parser=parse_size,
            metavar="SIZE",
            help="Memory for open segments, as 16GB; those unused for longest are closed for others.",
        ),
    ] = None,
    cache_limit: Annotated[
        int,
        typer.Option(
            parser=parse_size, metavar="SIZE", help="Disk space for segments in the form that is optimised for this machine."
        ),
    ] = "20GB",  # type: ignore[assignment]  # typer parses the default, too
    segment_cache: Annotated[
        bool,
        typer.Option(
            "--segment-cache/--no-segment-cache", help="Keep optimised segments, and what was learnt, in ~/.cache/espalier."
        ),
    ] = True,
    verify_segments: Annotated[
        bool,
        typer.Option(
            "--verify-segments",
            help="Hash each segment and its optimised form when this process first opens them, even where an earlier one has since "
            "the machine started.",
        ),
    ] = False,
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
    drain_s: Annotated[float, typer.Option(min=0, help="Seconds that requests in flight get after SIGTERM; 0: none.")] = 30.0,
) -> None:
    """Serve a repository over HTTP and gRPC (v2 protocol) until SIGTERM or Ctrl-C.

    Every task is a model that any v2 client can call; `all_tasks` answers several at once and runs the trunk once.
    Images go to POST /predict; the API is described at /docs. GET /metrics is for Prometheus; OTEL_* variables turn on traces.
    """
    from contract.repository.write import recover
    from serving.engines.embedded import EngineOptions
    from serving.engines.sessions.store import SessionStoreOptions
    from serving.limits import changed_limits
    from serving.observe.logs import set_up_logging
    from serving.server import run

    check_engine_options(context, engine)
    set_up_logging(log_format, log_level)
    limits = changed_limits(limit or ())
    token = read_token(admin_token_file, "--admin-token-file")
    recover(repo)
    cache = _cache_folder() if segment_cache else None
    sessions = SessionStoreOptions(
        threads=threads,
        provider=provider,
        cache_folder=cache,
        cache_limit_bytes=cache_limit,
        record_hashes=not verify_segments,
        memory_limit_bytes=memory_limit,
        spin=spin,
    )
    options = EngineOptions(
        sessions, instances, max_queue_rows, max_batch_rows, learn_rows, None if cache is None else cache.with_name("rows.json")
    )
    run(
        repo,
        options=options,
        make_engine=triton_engine(triton_url, triton_send_files, triton_shared_memory, triton_wait_s, max_queue_rows)
        if triton_url
        else None,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        grace_s=drain_s,
        max_message_bytes=max_message_bytes,
        max_pending_bytes=max_pending_bytes,
        shared_memory=shared_memory,
        access_log=log_format is LogFormat.json if access_log is None else access_log,
        admin_token=token,
        check_samples=check_samples,
        rows_record=None if cache is None else cache.with_name("independent.txt"),
        plain=engine is EngineKind.embedded,
        limits=limits,
    )


def _cache_folder() -> Path | None:
    """Return where optimised segments, and what was learnt, are kept; None, and a line that says why, where they cannot be."""
    from serving.engines.onnxruntime.segment_cache import NoCacheFolder, default_cache_folder

    try:
        return default_cache_folder()
    except NoCacheFolder as error:
        logging.getLogger(__name__).warning(
            "Nothing is kept for the next start, because %s; let XDG_CACHE_HOME name a folder of this user's, or give "
            "--no-segment-cache.",
            error,
        )
        return None
