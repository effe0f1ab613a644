"""Options of `espalier serve`, in groups: where it listens, what it says, what requests may cost, and how segments are run and kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from espalier.commands.options.sizes import parse_lengths, parse_limit, parse_size

if TYPE_CHECKING:
    from serving.engines.embedded import EngineOptions
    from serving.limits import Limits


class _LogFormat(StrEnum):
    """How log lines are written."""

    console = "console"
    json = "json"


class _LogLevel(StrEnum):
    """The least that is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


@dataclass(frozen=True)
class Addresses:
    """Options of where the server listens."""

    host: Annotated[str, typer.Option(help="The address to listen on. Anything but the loopback is reachable by others.")] = (
        "127.0.0.1"
    )
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for HTTP; 0: any free one.")] = 8000
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port for gRPC; 0: any free one.")] = 8001


@dataclass(frozen=True)
class LogLines:
    """Options of the log."""

    log_format: Annotated[_LogFormat, typer.Option(help="Log lines for people, or one JSON object a line.")] = _LogFormat.console
    log_level: Annotated[_LogLevel, typer.Option(help="The least that is logged.")] = _LogLevel.info
    access_log: Annotated[
        bool | None,
        typer.Option("--access-log/--no-access-log", help="A log line per request. By default with --log-format json only."),
    ] = None

    def set_up(self) -> None:
        """Have the process log like this."""
        from serving.observe.logs import set_up_logging

        set_up_logging(self.log_format, self.log_level)

    @property
    def has_requests(self) -> bool:
        """Whether each request gets a line."""
        return self.log_format is _LogFormat.json if self.access_log is None else self.access_log


@dataclass(frozen=True)
class Scheduling:
    """Options of which rows run together, and how many wait."""

    instances: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at a time; the threads are shared out among them. By default one with all threads, or where several wait, as many "
            "as there are threads.",
        ),
    ] = None
    max_batch_rows: Annotated[
        int | None, typer.Option(min=1, help="The most rows of a run; by default as many as are best on this machine.")
    ] = None
    max_batch_elements: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Where sizes are free (the length of a text), the most elements of a run, in what a segment takes and gives together; by "
            "default as many as the best number of rows has at the sizes of the export.",
        ),
    ] = None
    pad_lengths: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Pad texts to the next of these lengths, as 16,32,64, so that requests of different lengths run together; where a task "
            "has an attention mask that hides what is added.",
        ),
    ] = None
    max_queue_rows: Annotated[
        int, typer.Option(min=1, help="Rows that may wait, of which each model has its share; more are refused (429).")
    ] = 1024

    @property
    def lengths(self) -> tuple[int, ...]:
        """Return to which lengths texts are padded. Raises BadParameter."""
        return () if self.pad_lengths is None else parse_lengths(self.pad_lengths, "--pad-lengths")


@dataclass(frozen=True)
class RequestLimits:
    """Options of what requests may cost."""

    max_pending_bytes: Annotated[
        int | None,
        typer.Option(
            parser=parse_limit,
            metavar="SIZE",
            help="Bytes of requests that are not answered yet, beyond which more are refused (429); 0: no limit. By default a quarter "
            "of the memory, 4 GiB at most.",
        ),
    ] = None
    max_message_bytes: Annotated[
        int | None,
        typer.Option(
            parser=parse_size,
            metavar="SIZE",
            help="Bytes of a gRPC message, not compressed. By default as many as 1,024 rows of any model take, at least 4 MiB and at "
            "most 24 MiB; give more where clients or models that are deployed later need it.",
        ),
    ] = None
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another value for a limit on connections, messages, images or texts, such as headers=64 or image_bytes=8MiB; may be "
            "given several times. docs/reference/limits.md has the names.",
        ),
    ] = None

    def limits(self) -> Limits:
        """Return those on connections, messages and images. Raises InvalidLimit."""
        from serving.limits import changed_limits

        return changed_limits(self.limit or ())


@dataclass(frozen=True)
class Segments:
    """Options of how the embedded engine runs segments, and of what it keeps of them in memory and on disk."""

    learn_rows: Annotated[
        bool, typer.Option("--learn-rows/--no-learn-rows", help="Find out at the start how many rows are best for each segment.")
    ] = True
    spin: Annotated[
        bool,
        typer.Option(
            "--spin/--no-spin",
            help="Let threads of a run wait for each other awake, if there is a core for each. --no-spin where others need the cores.",
        ),
    ] = True
    provider: Annotated[
        str, typer.Option(help="What computes: auto (a GPU if CUDA works here, else the CPU), cpu, cuda, tensorrt or openvino.")
    ] = "auto"
    memory_limit: Annotated[
        int | None,
        typer.Option(
            parser=parse_size,
            metavar="SIZE",
            help="Memory for open segments, as 16GB; those unused for longest are closed for others.",
        ),
    ] = None
    feature_cache: Annotated[
        int | None,
        typer.Option(
            parser=parse_size,
            metavar="SIZE",
            help="Memory for what tasks share, as 512MB: a later request for other tasks on the same input runs their branches only. By "
            "default nothing is kept.",
        ),
    ] = None
    cache_limit: Annotated[
        int,
        typer.Option(
            parser=parse_size, metavar="SIZE", help="Disk space for segments in the form that is optimised for this machine."
        ),
    ] = "20GB"  # type: ignore[assignment]  # typer parses the default, too
    segment_cache: Annotated[
        bool,
        typer.Option(
            "--segment-cache/--no-segment-cache", help="Keep optimised segments, and what was learnt, in ~/.cache/espalier."
        ),
    ] = True
    verify_segments: Annotated[
        bool,
        typer.Option(
            "--verify-segments",
            help="Hash each segment and its optimised form, and run it once, when this process first opens it, even where an earlier "
            "one has since the machine started.",
        ),
    ] = False

    def engine_options(self, threads: int | None, scheduling: Scheduling, cache: Path | None) -> EngineOptions:
        """Return the options as the embedded engine takes them. cache: as `cache_folder` says."""
        from serving.engines.embedded import EngineOptions
        from serving.engines.sessions.runtime import SessionStoreOptions

        sessions = SessionStoreOptions(
            threads=threads,
            provider=self.provider,
            cache_folder=cache,
            cache_limit_bytes=self.cache_limit,
            record_hashes=not self.verify_segments,
            memory_limit_bytes=self.memory_limit,
            spin=self.spin,
        )
        return EngineOptions(
            sessions,
            scheduling.instances,
            scheduling.max_queue_rows,
            scheduling.max_batch_rows,
            self.learn_rows,
            None if cache is None else cache.with_name("rows.json"),
            scheduling.max_batch_elements,
            None if cache is None or self.verify_segments else cache.with_name("checked.txt"),
        )

    def cache_folder(self) -> Path | None:
        """Return where optimised segments, and what was learnt, are kept; None, and a line that says why, where they cannot be."""
        from serving.engines.onnxruntime.segment_cache import NoSegmentCache, default_cache_folder

        if not self.segment_cache:
            return None
        try:
            return default_cache_folder()
        except NoSegmentCache as error:
            logging.getLogger(__name__).warning(
                "Nothing is kept for the next start, because %s; let XDG_CACHE_HOME name a folder of this user's, or give "
                "--no-segment-cache.",
                error,
            )
            return None
