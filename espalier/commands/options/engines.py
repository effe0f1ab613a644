"""Which engine `espalier serve` computes with, and the options that are of use with one of them only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from contract.repository import Repository
    from serving.engines.base import Engine
    from serving.engines.sessions.runtime import SessionStoreOptions

_PANEL = "With --engine triton"


class EngineKind(StrEnum):
    """What runs the segments."""

    embedded = "embedded"
    openvino = "openvino"
    triton = "triton"


class PrecisionChoice(StrEnum):
    """In which numbers OpenVINO computes."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


_HERE = (EngineKind.embedded, EngineKind.openvino)


_ONLY_WITH: dict[tuple[EngineKind, ...], tuple[str, ...]] = {
    _HERE: (
        "threads",
        "instances",
        "max_batch_rows",
        "max_batch_elements",
        "learn_rows",
        "spin",
        "memory_limit",
        "feature_cache",
        "cache_limit",
        "verify_segments",
    ),
    (EngineKind.embedded,): ("provider",),
    (EngineKind.openvino,): ("precision",),
    (EngineKind.triton,): ("triton_url", "triton_send_files", "triton_shared_memory", "triton_wait_s"),
}


@dataclass(frozen=True)
class EngineChoice:
    """Options of what computes, and of an engine that is elsewhere."""

    engine: Annotated[
        EngineKind,
        typer.Option("--engine", help="What computes: ONNX Runtime or OpenVINO in this process, or Tritons elsewhere."),
    ] = EngineKind.embedded
    triton_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where Triton's gRPC is: grpc://HOST:8001, several with commas. Of a name, all addresses are used.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    triton_send_files: Annotated[
        bool,
        typer.Option(
            "--triton-send-files", help="Send models to Triton: it has not got this repository.", rich_help_panel=_PANEL
        ),
    ] = False
    triton_shared_memory: Annotated[
        bool,
        typer.Option(
            "--triton-shared-memory",
            help="Hand inputs to Tritons on this host in shared memory; their /dev/shm and user have to be ours.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    triton_wait_s: Annotated[
        float, typer.Option(min=0, help="Seconds that the start waits for a Triton that answers.", rich_help_panel=_PANEL)
    ] = 30.0
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the engine; by default as many as this process has cores.")
    ] = None
    precision: Annotated[
        PrecisionChoice,
        typer.Option(
            help="In which numbers OpenVINO computes; auto: in bf16 where the processor has it. Segments whose answers to the recorded "
            "samples it changes stay in fp32.",
            rich_help_panel="With --engine openvino",
        ),
    ] = PrecisionChoice.fp32

    def on(self, sessions: SessionStoreOptions) -> SessionStoreOptions:
        """Return `sessions` with what computes in this process, and in which precision."""
        from serving.engines.sessions.runtime import Precision, RuntimeKind

        kind = RuntimeKind.openvino if self.engine is EngineKind.openvino else RuntimeKind.onnxruntime
        return replace(sessions, runtime=kind, precision=Precision(self.precision))

    @property
    def is_here(self) -> bool:
        """Whether this process computes."""
        return self.engine in _HERE

    def make_engine(self, max_queue_rows: int) -> Callable[[Repository], Engine] | None:
        """Return a function that makes the engine for a repository; None: the embedded one. Raises InvalidTritonUrl."""
        url = self.triton_url
        if not url:
            return None
        from serving.engines.triton.addresses import parse_urls
        from serving.engines.triton.engine import TritonEngine, TritonEngineOptions
        from serving.engines.triton.shared_memory_channel import SHARED_FROM_BYTES

        parse_urls(url)
        options = TritonEngineOptions(
            send_files=self.triton_send_files,
            wait_s=self.triton_wait_s,
            max_queue_rows=max_queue_rows,
            shared_from_bytes=SHARED_FROM_BYTES if self.triton_shared_memory else None,
        )
        return lambda repository: TritonEngine(repository, url, options)


def check_engine_options(context: typer.Context, engine: EngineKind) -> None:
    """Raise typer.BadParameter when an option was given that `engine` has no use for, or one is missing that it needs."""
    for others, names in _ONLY_WITH.items():
        for parameter in context.command.params:
            source = context.get_parameter_source(parameter.name or "")
            if engine not in others and parameter.name in names and source is not None and source.name == "COMMANDLINE":
                raise typer.BadParameter(f"is of use with --engine {' or '.join(others)} only.", param_hint=parameter.opts[0])
    if engine is EngineKind.triton and not context.params["triton_url"]:
        raise typer.BadParameter(
            "where is Triton? Give its gRPC address, such as --triton-url grpc://127.0.0.1:8001.", param_hint="--triton-url"
        )
