"""Serves a repository over HTTP and gRPC on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from contract.repository.model import Repository, Task
from contract.repository.read import RepositoryReader
from serving.engines.base import Engine
from serving.features.cached_engine import with_feature_cache
from serving.lifecycle import served_part
from serving.observe.prometheus import Metrics
from serving.observe.setup import Observation, make_observation
from serving.options import ServerOptions
from serving.page.page import Page
from serving.process.ending import LEFT_S, LOOP_S, News, end_process, ended_after, in_time
from serving.process.loop_thread import LoopThread
from serving.process.memory import garbage_left, give_back_in_idle_moments, share_one_heap
from serving.process.sockets import format_address
from serving.process.threads import at_work
from serving.protocol.control import Admin
from serving.protocol.front_end import FrontEnd, Service
from serving.protocol.grpc.server import GrpcFrontEnd
from serving.protocol.http.server import HttpFrontEnd
from serving.protocol.memory_budget import MemoryBudget, default_budget_bytes
from serving.protocol.shared_memory import SharedMemory
from serving.router import Router
from serving.watch import Watch, check_watch

log = logging.getLogger(__name__)
_SWITCH_S = 0.0005
_FLUSH_S = 0.3  # of LEFT_S, for traces


class Server:
    """A repository, served. `start` returns when it is ready; `aclose` finishes what is in flight.

    `aclose` returns a second after `grace_s` at the latest. A thread cannot be stopped: what still computes then is left behind in threads
    that end with their work and hold up no process, and a log line says so.

    repository: a folder, or what was read from one. engine: by default the embedded one. options: as of `ServerOptions`.
    """

    def __init__(self, repository: Repository | str | Path, engine: Engine | None = None, **options: Any) -> None:
        self._options = chosen = ServerOptions(**options)
        self._repository = repository
        self._engine = engine
        self._budget = MemoryBudget(default_budget_bytes() if chosen.max_pending_bytes is None else chosen.max_pending_bytes)
        self._http = HttpFrontEnd(chosen.host, chosen.http_port, chosen.limits.http, chosen.limits.images, chosen.limits.texts)
        self._grpc = GrpcFrontEnd(chosen.host, chosen.grpc_port, chosen.max_message_bytes)
        self._front_ends: Sequence[FrontEnd] = (self._http, self._grpc)
        self._page = None if chosen.page is None else Page(chosen.page)
        self._closing = contextlib.AsyncExitStack()
        self._end = 0.0  # of `aclose`, by time.monotonic
        self._left = False
        self._tasks: Mapping[str, Task] = {}

    @property
    def end_s(self) -> float:
        """Return after how many seconds an event loop in which `aclose` has not ended will not come back."""
        return self._options.grace_s + LEFT_S + LOOP_S

    @property
    def has_left_work(self) -> bool:
        """Whether something that still computes was left behind at the end."""
        return self._left

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Return the tasks that it was started with, by name; none before `start`."""
        return self._tasks

    @property
    def http_port(self) -> int:
        """Return the port of HTTP."""
        return self._http.port

    @property
    def grpc_port(self) -> int:
        """Return the port of gRPC."""
        return self._grpc.port

    @property
    def http_address(self) -> str:
        """Return host:port of HTTP."""
        return format_address(self._options.host, self.http_port)

    @property
    def grpc_address(self) -> str:
        """Return host:port of gRPC."""
        return format_address(self._options.host, self.grpc_port)

    async def start(self) -> None:
        """Read the repository, take the ports, answer "not ready" on them, load the models, be ready.

        Raises RepositoryError, AddressInUse, InvalidAddress, ExtraNeeded; then nothing stays behind.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._note_left)
            if self._options.watch:
                check_watch()
            repository, reader = self._read()
            self._tasks = repository.tasks
            others = [*self._options.observers, *([self._page.deploys] if self._page else [])]
            observation = make_observation(access_log=self._options.access_log, others=others)
            stack.push_async_callback(self._flush, observation)
            engine = self._engine or self._options.engine_for(repository)
            if self._options.feature_cache_bytes:
                engine = with_feature_cache(engine, repository, self._options.feature_cache_bytes)
                observation.metrics.watch_features(engine.features)
            router = Router(
                repository,
                engine,
                observation.observer,
                reader=reader,
                rows_record=self._options.rows_record,
                pad_lengths=self._options.pad_lengths,
            )
            observation.metrics.watch(router, lambda: self._budget.bytes)
            service = self._service(router, observation.metrics)
            stack.callback(service.pool.close)
            for front_end in self._front_ends:
                await front_end.start(service)
                stack.push_async_callback(front_end.aclose, 0.0)
            stack.push_async_exit(lambda kind, *error: self._shut_down(router, kind))
            await router.start(self._options.check_samples)
            if self._options.watch:
                watch = Watch(router, repository)
                watch.start()
                stack.push_async_callback(watch.aclose)
            giving_back = asyncio.create_task(give_back_in_idle_moments(lambda: not self._budget.bytes))
            stack.callback(giving_back.cancel)
            self._closing = stack.pop_all()

    async def aclose(self) -> None:
        """Refuse new requests, finish those in flight, release everything. Does nothing when it is not started."""
        await self._closing.aclose()

    def _read(self) -> tuple[Repository, RepositoryReader | None]:
        """Return what is to be served, and who has read it, so that loads need not read all of it again."""
        if isinstance(self._repository, Repository):
            return served_part(self._repository), None
        reader = RepositoryReader(self._repository, self._options.read_plain, self._options.configs)
        return served_part(reader.read()), reader

    def _service(self, router: Router, metrics: Metrics) -> Service:
        options = self._options
        return Service(
            router,
            metrics,
            Admin(options.admin_token),
            self._budget,
            SharedMemory(options.max_body_bytes) if options.shared_memory else None,
            max_body_bytes=options.max_body_bytes,
            limits=options.limits.messages,
            page=self._page,
        )

    async def _shut_down(self, router: Router, kind: type[BaseException] | None) -> None:
        """kind: of the error that ends a start; a start that is cancelled has no requests to wait for."""
        grace_s = 0.0 if kind is asyncio.CancelledError else self._options.grace_s
        self._end = time.monotonic() + grace_s + LEFT_S
        router.drain()
        try:
            await self._in_time(asyncio.gather(*(front_end.aclose(grace_s) for front_end in self._front_ends)), "A request")
        finally:
            await self._in_time(router.aclose(), "The engine")

    async def _in_time(self, work: Awaitable[object], what: str) -> None:
        self._left |= not await in_time(work, self._end - _FLUSH_S, what)

    async def _flush(self, observation: Observation) -> None:
        """Send what traces are left."""
        self._left |= not await in_time(observation.aclose(), max(self._end, time.monotonic() + _FLUSH_S), "Sending traces")

    def _note_left(self) -> None:
        if busy := at_work():
            self._left = True
            log.warning("Still at work, in threads that end with their work or with this process: %s.", ", ".join(busy))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()


def run(repository: Repository | str | Path, *, on_ready: Callable[[Server], None] | None = None, **options: Any) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight and return; a second signal ends the process at once.

    It takes `grace_s` and two seconds at most. Where threads still compute then, the process is ended from here, after what is registered
    with `atexit`: with 0, or with 128 + the signal's number if the event loop has not come back, so that requests were cut off unanswered.

    To be called in the main thread, which waits for signals; the event loop has another one, so that nothing that runs in it keeps them
    from being heard. options: as of `Server`. on_ready is called with the server, once, when requests are answered; by default its
    addresses are printed. Raises as `Server.start` does.
    """
    # While a thread works in Python (a deploy reads configurations), others wait for Python's lock this long, at every step that they take:
    # with the default of 5 ms, requests beside deploys took 2.8 times as long as quiet ones at the 99th percentile, now 2.1.
    sys.setswitchinterval(_SWITCH_S)
    share_one_heap()
    server = Server(repository, **options)
    loop = LoopThread(server.start, server.aclose, "espalier-server")
    news = News()  # a signal's number; 0 when the server is ready, or could not be
    with contextlib.closing(news), news.of_signals():
        with garbage_left():
            loop.begin(lambda: news.put(0))
            number = news.get()
        try:
            if not number and loop.is_ready:
                # What is here now stays. To look through all of it for garbage takes 40 ms, in which nobody is answered.
                gc.collect()
                gc.freeze()
                (on_ready or _announce)(server)
                number = news.get()
        except BaseException:
            loop.finish(server.end_s)
            raise
        _leave(server, loop, number)


def _leave(server: Server, loop: LoopThread, number: int) -> None:
    """Stop `server`, and return if nothing of it is left; else end the process. number: of the signal."""
    with ended_after(server.end_s + LOOP_S):
        if not loop.finish(server.end_s):
            log.error("The event loop does not come back: the process is ended, and requests that are not answered are cut off.")
            end_process(128 + number)
        if server.has_left_work or loop.is_running:
            end_process(0)


class BackgroundServer:
    """A `Server` in a thread with an event loop of its own, for notebooks, tests and the demo.

    Entering returns when it is ready, and raises what `Server.start` raises. options: as of `Server`.
    """

    def __init__(self, repository: Repository | str | Path, engine: Engine | None = None, **options: Any) -> None:
        self._server = Server(repository, engine, **options)
        self._loop = LoopThread(self._server.start, self._server.aclose, "espalier-server")

    @property
    def http_port(self) -> int:
        """Return the port of HTTP."""
        return self._server.http_port

    @property
    def grpc_port(self) -> int:
        """Return the port of gRPC."""
        return self._server.grpc_port

    @property
    def http_address(self) -> str:
        """Return host:port of HTTP."""
        return self._server.http_address

    @property
    def grpc_address(self) -> str:
        """Return host:port of gRPC."""
        return self._server.grpc_address

    def __enter__(self) -> Self:
        self._loop.begin()
        self._loop.wait_until_ready()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if not self._loop.finish(self._server.end_s):
                log.error("The server's event loop does not come back, and was left behind: its thread ends with its work.")
        except BaseException:
            if error is None:
                raise


def announce(http_address: str, grpc_address: str) -> None:
    """Say on standard output where requests are answered."""
    print(f"Serving on http://{http_address} (API at /docs) and grpc://{grpc_address}; Ctrl-C stops.", flush=True)


def _announce(server: Server) -> None:
    announce(server.http_address, server.grpc_address)
