"""gRPC as a front end, with the limits that gRPC itself keeps: of messages, headers, calls and connections."""

from __future__ import annotations

import logging
import math
import resource
from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from contract.dtypes import BYTES, NUMPY_DTYPES
from contract.repository.model import TensorSpec
from serving.catalog import Model
from serving.errors import AddressInUse
from serving.process.sockets import format_address, listening_socket
from serving.protocol.front_end import Service
from serving.protocol.grpc.servicer import add_service

_MAX_CALLS_OF_A_CONNECTION = 1024  # a client's others wait in the client
_MAX_CONNECTIONS = 1024
_LEAST_BYTES = 4 << 20
_MOST_BYTES = 24 << 20  # to copy one takes the event loop 1.3 to 2 ms for each MB
_ROWS = 1024  # a message of as many is let in
_SETTINGS: Mapping[str, int] = {
    "grpc.so_reuseport": 0,  # else a second server would silently share the port
    "grpc.max_send_message_length": -1,
    "grpc.max_concurrent_streams": _MAX_CALLS_OF_A_CONNECTION,
    "grpc.max_metadata_size": 1 << 13,  # headers of a call that are let in for sure; beyond it some are refused,
    "grpc.absolute_max_metadata_size": 1 << 14,  # and here all
    "grpc.server_handshake_timeout_ms": 20_000,
    "grpc.max_connection_idle_ms": 300_000,  # without a call; clients connect again when they have one
    "grpc.keepalive_time_ms": 60_000,  # a connection on which nothing comes is asked whether it is there still,
    "grpc.keepalive_timeout_ms": 20_000,  # and closed when it does not say so
}


class GrpcFrontEnd:
    """gRPC on `host`:`port`, 0: any free port.

    max_message_bytes: of a message, not compressed; None: what the models need that are there at the start (`needed_bytes`), and
    `max_body_bytes` of the service at most.
    """

    def __init__(self, host: str, port: int, max_message_bytes: int | None = None) -> None:
        self.port = port
        self._host = host
        self._max_message_bytes = max_message_bytes
        self._server: Any = None

    async def start(self, service: Service) -> None:
        """Take the port and answer for `service` on it. Raises AddressInUse, InvalidAddress; then nothing stays behind."""
        needed = min(needed_bytes(service.router.catalog.all_versions()), service.max_body_bytes)
        self._server = _make_server(self._max_message_bytes or needed)
        try:
            self.port = _take_port(self._server, self._host, self.port)
            add_service(self._server, service)
            await self._server.start()
        except BaseException:
            await self.aclose(0.0)
            raise

    async def aclose(self, grace_s: float) -> None:
        """Take no more calls, and finish those in flight within `grace_s` seconds."""
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None  # one that is let go of when its loop is closed complains


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether what gRPC logs is news: that a client has gone in the midst of its answer, with a trace each time, is not."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"


def max_connections() -> int:
    """Return how many connections clients may have: so many that three quarters of the descriptors of this process are left for others."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else max(1, min(_MAX_CONNECTIONS, descriptors // 4))


def needed_bytes(models: Iterable[Model]) -> int:
    """Return how long a message may be: 1,024 rows of any of `models`, as large as their free sizes may be; 4 MiB at least, and 24 MiB at
    most, as where sizes are not known.

    A message is one piece of memory before anybody can look at it, and comes compressed to a thousandth.
    """
    rows = [sum(map(_row_bytes, model.largest_inputs())) for model in models]
    return int(min(max(_LEAST_BYTES, (_ROWS * max(rows, default=0))), _MOST_BYTES))


def _row_bytes(spec: TensorSpec) -> float:
    if spec.dtype == BYTES or spec.dtype not in NUMPY_DTYPES or min(spec.shape, default=0) < 0:
        return math.inf
    return math.prod(spec.shape) * NUMPY_DTYPES[spec.dtype].itemsize


def _make_server(max_message_bytes: int) -> Any:
    """Return a grpc.aio server without services."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_worth_a_line)
    settings = {
        **_SETTINGS,
        "grpc.max_receive_message_length": max_message_bytes,
        "grpc.max_allowed_incoming_connections": max_connections(),
    }
    return grpc.aio.server(options=[*settings.items()])


def _take_port(server: Any, host: str, port: int) -> int:
    """Let `server` listen on `host`:`port` and return the port. Raises AddressInUse, InvalidAddress."""
    listening_socket(host, port).close()  # gRPC's own error says no more than that it did not work
    try:
        bound = int(server.add_insecure_port(format_address(host, port)))
    except RuntimeError as error:
        raise AddressInUse(host, port) from error
    if not bound:
        raise AddressInUse(host, port)
    return bound
