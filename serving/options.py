"""What a server can be told at its start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from contract.repository.model import Repository
from contract.repository.read import ReadPlain
from serving.engines.base import Engine
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.onnxruntime.plain import read_plain, refuse_plain
from serving.limits import Limits
from serving.observe.events import Observer
from serving.page.page import DrawTree
from serving.protocol.front_end import MAX_BODY_BYTES


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """All of them have a usual value.

    threads: of the embedded engine, None: all cores; options: of it, in place of `threads`. make_engine: makes another engine from what is
    read.
    http_port, grpc_port: 0 means any free port. grace_s: how long the end waits for requests, in seconds.
    shared_memory: whether clients may have their tensors in shared memory objects of this machine, whichever this process may open.
    max_message_bytes: of a gRPC message, not compressed; None: what the models need that are there at the start (`needed_bytes`), and
    `max_body_bytes` at most.
    max_pending_bytes: of requests that are not answered yet, together; more are refused (0: none is; None: a quarter of the memory).
    admin_token: whoever knows it may load and unload models; None: nobody. access_log: a log line per request.
    plain: whether ONNX models are served that espalier did not export, which needs an engine that runs what it is given: the embedded one.
    observers: who else hears what happens, beside metrics, log and traces. check_samples: whether every task's answer is compared with
    what was recorded at its export before the server is ready, as it always is when a task is loaded later. rows_record: a file that keeps
    which segments of older repositories may be batched, so that the next start need not find out again; None: none.
    configs: a folder that keeps configurations as they were parsed, so that the next start need not; None: none.
    pad_lengths: to the next of which texts are padded, so that requests of different lengths run together, where a task has a mask that
    hides what is added, as runs at the start find out; none: nothing is padded. limits: of connections, messages and images.
    page: what draws the tree of a repository, for the page at `/` (`serving.page`); None: there is no page.
    feature_cache_bytes: how much of what segments give is kept for later requests with the same input (serving/features/); None: nothing.
    watch: whether what changes on disk is loaded when it does (serving/watch.py).
    """

    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int = 8001
    threads: int | None = None
    options: EngineOptions | None = None
    make_engine: Callable[[Repository], Engine] | None = None
    max_body_bytes: int = MAX_BODY_BYTES
    max_message_bytes: int | None = None
    max_pending_bytes: int | None = None
    grace_s: float = 30.0
    shared_memory: bool = False
    access_log: bool = False
    observers: Sequence[Observer] = ()
    admin_token: str | None = None
    check_samples: bool = False
    rows_record: Path | None = None
    configs: Path | None = None
    plain: bool = True
    pad_lengths: Sequence[int] = ()
    feature_cache_bytes: int | None = None
    watch: bool = False
    limits: Limits = field(default_factory=Limits)
    page: DrawTree | None = None

    def engine_for(self, repository: Repository) -> Engine:
        """Return the engine that is to run `repository`."""
        if self.make_engine is not None:
            return self.make_engine(repository)
        return EmbeddedEngine(repository, threads=self.threads, options=self.options)

    @property
    def read_plain(self) -> ReadPlain:
        """Return what reads ONNX models that espalier did not export, or refuses them."""
        limit = self.options.sessions.memory_limit_bytes if self.options else None
        return partial(read_plain, memory_limit_bytes=limit) if self.plain else refuse_plain
