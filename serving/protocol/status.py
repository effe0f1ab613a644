"""The one table from errors to wire codes."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from contract.errors import EspalierError, ExtraNeeded, InvalidRequest
from serving.errors import (
    BodyStalled,
    BodyTooLarge,
    BodyTooSlow,
    DeadlineExceeded,
    EngineDown,
    Forbidden,
    HeadStalled,
    HeadTooLarge,
    LoadFailed,
    NotReady,
    QueueFull,
    TaskFailed,
    TooManyHeaders,
    Unauthenticated,
    UnknownModel,
    UnknownRegion,
    Unsupported,
    UrlTooLong,
)


@dataclass(frozen=True)
class _WireCodes:
    """What an error becomes on either protocol."""

    http: int
    grpc: grpc.StatusCode


_MAX_CHARS = 1000  # a sentence may quote what a client sent; gRPC's clients refuse trailers of more than 8 KiB
RETRY_AFTER_S = 1  # a queue is seconds long at most
RETRY_LATER = (QueueFull, EngineDown)  # answered with Retry-After
_INTERNAL = _WireCodes(500, grpc.StatusCode.INTERNAL)
# A class stands for its subclasses; what is not in the table is ours to mend.
_TABLE: dict[type[EspalierError], _WireCodes] = {
    ExtraNeeded: _WireCodes(501, grpc.StatusCode.UNIMPLEMENTED),
    InvalidRequest: _WireCodes(400, grpc.StatusCode.INVALID_ARGUMENT),
    UnknownModel: _WireCodes(404, grpc.StatusCode.NOT_FOUND),
    UnknownRegion: _WireCodes(404, grpc.StatusCode.NOT_FOUND),
    BodyStalled: _WireCodes(408, grpc.StatusCode.DEADLINE_EXCEEDED),
    BodyTooSlow: _WireCodes(408, grpc.StatusCode.DEADLINE_EXCEEDED),
    HeadStalled: _WireCodes(408, grpc.StatusCode.DEADLINE_EXCEEDED),
    HeadTooLarge: _WireCodes(431, grpc.StatusCode.RESOURCE_EXHAUSTED),
    TooManyHeaders: _WireCodes(431, grpc.StatusCode.RESOURCE_EXHAUSTED),
    UrlTooLong: _WireCodes(414, grpc.StatusCode.RESOURCE_EXHAUSTED),
    BodyTooLarge: _WireCodes(413, grpc.StatusCode.RESOURCE_EXHAUSTED),
    Unsupported: _WireCodes(501, grpc.StatusCode.UNIMPLEMENTED),
    QueueFull: _WireCodes(429, grpc.StatusCode.RESOURCE_EXHAUSTED),
    DeadlineExceeded: _WireCodes(504, grpc.StatusCode.DEADLINE_EXCEEDED),
    TaskFailed: _WireCodes(503, grpc.StatusCode.UNAVAILABLE),
    LoadFailed: _WireCodes(400, grpc.StatusCode.INVALID_ARGUMENT),
    Unauthenticated: _WireCodes(401, grpc.StatusCode.UNAUTHENTICATED),
    Forbidden: _WireCodes(403, grpc.StatusCode.PERMISSION_DENIED),
    NotReady: _WireCodes(503, grpc.StatusCode.UNAVAILABLE),
}


def wire_codes(error: BaseException) -> _WireCodes:
    """Return the codes of `error`: those of the nearest class in its ancestry."""
    return next((_TABLE[kind] for kind in type(error).__mro__ if kind in _TABLE), _INTERNAL)


def sentence(error: BaseException) -> str:
    """Return what clients may read of `error`. Only our own errors are written for them; others may hold paths."""
    if not isinstance(error, EspalierError):
        return "Internal error; the server's log says more."
    text = str(error)
    return text if len(text) <= _MAX_CHARS else f"{text[: _MAX_CHARS // 2]} [...] {text[-_MAX_CHARS // 2 :]}"
