"""The standard gRPC health service, `grpc.health.v1.Health`, for the server and for each model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from serving.errors import TextTooLong
from serving.protocol.grpc.service import SHUTTING_DOWN, refuse
from serving.router import Router

HEALTH_SERVICE: Any = health_pb2.DESCRIPTOR.services_by_name["Health"]
MAX_NAME_CHARS = 1000
_pb: Any = health_pb2
_Status: Any = _pb.HealthCheckResponse
_INFERENCE: str = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_POLL_S = 0.1


class Health:
    """Answers for the server (service "", or the inference service's name) and for models by their names."""

    def __init__(self, router: Router, poll_s: float = _POLL_S) -> None:
        self._router = router
        self._board = _Board(self._status, lambda: router.draining, poll_s)

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """SERVING or NOT_SERVING; the status NOT_FOUND for a service that there is not."""
        await self._check_name(request.service, context)
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "Unknown service; it is empty for the server, or the name of a model.")
        return _Status(status=status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Send the status now and whenever it changes, SERVICE_UNKNOWN included.

        The stream ends when the server shuts down, which waits for its streams.
        """
        await self._check_name(request.service, context)
        with self._board.watch(request.service) as watched:
            sent = None
            while True:
                changed = watched.changed
                if watched.status != sent:
                    sent = watched.status
                    yield _Status(status=sent)
                elif self._router.draining:  # in a turn of its own: an abort overtakes a message that has just been sent
                    await context.abort(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)
                await changed.wait()

    async def _check_name(self, service: str, context: Any) -> None:
        if len(service) > MAX_NAME_CHARS:
            await refuse(TextTooLong(len(service), MAX_NAME_CHARS), context, self._router.observer.refused)

    def _status(self, service: str) -> Any:
        if service in ("", _INFERENCE):
            return _Status.SERVING if self._router.ready else _Status.NOT_SERVING
        model = self._router.catalog.models.get(service)
        if model is None:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if self._router.is_model_ready(model) else _Status.NOT_SERVING


class _Watched:
    """A service that somebody watches. changed: set, and replaced by another, when there is something to look at."""

    def __init__(self, status: Any) -> None:
        self.status = status
        self.watchers = 0
        self.changed = asyncio.Event()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class _Board:
    """Looks at the statuses of all services that are watched, once for all their watchers, and only while there are any.

    is_ending: whether watchers are to look around even where nothing has changed.
    """

    def __init__(self, look: Callable[[str], Any], is_ending: Callable[[], bool], poll_s: float) -> None:
        self._look = look
        self._is_ending = is_ending
        self._poll_s = poll_s
        self._services: dict[str, _Watched] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def watch(self, service: str) -> Iterator[_Watched]:
        """Return what is known of `service`, which is kept up to date until the context ends."""
        watched = self._services.setdefault(service, _Watched(None))
        watched.watchers += 1
        self._look_at(service, watched)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_again())
        try:
            yield watched
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                del self._services[service]
            if not self._services and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            for service, watched in self._services.items():
                self._look_at(service, watched)

    def _look_at(self, service: str, watched: _Watched) -> None:
        status = self._look(service)
        if status != watched.status or self._is_ending():
            watched.status = status
            watched.wake()
