"""The standard gRPC health service, `grpc.health.v1.Health`, for the server and for each model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2

from serving.errors import UnknownModel
from serving.router import Router

HEALTH_SERVICE: Any = health_pb2.DESCRIPTOR.services_by_name["Health"]
_pb: Any = health_pb2
_Status: Any = _pb.HealthCheckResponse
_INFERENCE: str = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_POLL_S = 0.1


class Health:
    """Answers for the server (service "", or the inference service's name) and for models by their names."""

    def __init__(self, router: Router, poll_s: float = _POLL_S) -> None:
        self._router = router
        self._poll_s = poll_s

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """SERVING or NOT_SERVING; the status NOT_FOUND for a service that there is not."""
        status = self._status(request.service)
        if status == _Status.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "Unknown service; it is empty for the server, or the name of a model.")
        return _Status(status=status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Send the status now and whenever it changes, SERVICE_UNKNOWN included.

        The stream ends when the server shuts down, which waits for its streams.
        """
        sent = None
        while True:
            status = self._status(request.service)
            if status != sent:
                yield _Status(status=status)
                sent = status
            elif self._router.draining:  # in a turn of its own: an abort overtakes a message that has just been sent
                await context.abort(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.")
            await asyncio.sleep(self._poll_s)

    def _status(self, service: str) -> Any:
        try:
            is_ready = self._is_ready(service)
        except UnknownModel:
            return _Status.SERVICE_UNKNOWN
        return _Status.SERVING if is_ready else _Status.NOT_SERVING

    def _is_ready(self, service: str) -> bool:
        if service in ("", _INFERENCE):
            return self._router.ready
        return self._router.is_model_ready(self._router.catalog.find(service))
