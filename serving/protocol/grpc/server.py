"""The gRPC server, with the limits that gRPC itself keeps: of messages, headers, calls and connections."""

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

MAX_CALLS_OF_A_CONNECTION = 1024  # a client's others wait in the client
_MAX_CONNECTIONS = 1024
_LEAST_BYTES = 4 << 20
_MOST_BYTES = 24 << 20  # to copy one takes the event loop 1.3 to 2 ms for each MB
_ROWS = 1024  # a message of as many is let in
_SETTINGS: Mapping[str, int] = {
    "grpc.so_reuseport": 0,  # else a second server would silently share the port
    "grpc.max_send_message_length": -1,
    "grpc.max_concurrent_streams": MAX_CALLS_OF_A_CONNECTION,
    "grpc.max_metadata_size": 1 << 13,  # headers of a call that are let in for sure; beyond it some are refused,
    "grpc.absolute_max_metadata_size": 1 << 14,  # and here all
    "grpc.server_handshake_timeout_ms": 20_000,
    "grpc.max_connection_idle_ms": 300_000,  # without a call; clients connect again when they have one
    "grpc.keepalive_time_ms": 60_000,  # a connection on which nothing comes is asked whether it is there still,
    "grpc.keepalive_timeout_ms": 20_000,  # and closed when it does not say so
}


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Whether what gRPC logs is news: that a client has gone in the midst of its answer, with a trace each time, is not."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ExecuteBatchError"


def create_grpc_server(max_message_bytes: int) -> Any:
    """Return a grpc.aio server without services, so that its port can be taken before anything is loaded."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(is_worth_a_line)
    settings = {
        **_SETTINGS,
        "grpc.max_receive_message_length": max_message_bytes,
        "grpc.max_allowed_incoming_connections": max_connections(),
    }
    return grpc.aio.server(options=[*settings.items()])


def max_connections() -> int:
    """Return how many connections clients may have: so many that three quarters of the descriptors of this process are left for others."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if descriptors == resource.RLIM_INFINITY else max(1, min(_MAX_CONNECTIONS, descriptors // 4))


def needed_bytes(models: Iterable[Model]) -> int:
    """Return how long a message may be: 1,024 rows of any of `models`; 4 MiB at least, and 24 MiB at most, as where sizes are not known.

    A message is one piece of memory before anybody can look at it, and comes compressed to a thousandth.
    """
    rows = [sum(_row_bytes(spec) for spec in model.inputs) for model in models]
    return int(min(max(_LEAST_BYTES, (_ROWS * max(rows, default=0))), _MOST_BYTES))


def _row_bytes(spec: TensorSpec) -> float:
    if spec.dtype == BYTES or spec.dtype not in NUMPY_DTYPES or min(spec.shape, default=0) < 0:
        return math.inf
    return math.prod(spec.shape) * NUMPY_DTYPES[spec.dtype].itemsize
