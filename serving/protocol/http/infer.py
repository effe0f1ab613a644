"""The one endpoint whose time counts: inference over HTTP, answered before the framework's routing, validation and documentation.

Measured with a tiny network, the framework costs several times what decoding a request and encoding its answer does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import NotReady
from serving.process.work_pool import WorkPool
from serving.protocol.front_end import Service
from serving.protocol.http.body import accepted_compression, compressed, read_body
from serving.protocol.http.cancel_on_disconnect import cancel_on_disconnect
from serving.protocol.http.errors import answer_error, error_response
from serving.protocol.http.json_codec import (
    EncodedResponse,
    decode_request,
    encode_response,
    expected_bytes,
    is_slow_to_decode,
    is_slow_to_encode,
)
from serving.protocol.memory_budget import Reservation
from serving.protocol.message_limits import USUAL, MessageLimits
from serving.protocol.shared_memory import SharedMemory
from serving.router import Router

_Headers = list[tuple[bytes, bytes]]


class InferFront:
    """Answers POST /v2/models/MODEL[/versions/VERSION]/infer itself, and lets `app` answer everything else."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        named = _named_model(scope) if scope["type"] == "http" else None
        if named is None:
            await _answer_by(self._app, scope, receive, send)
            return
        service = self._service
        reservation = service.budget.reserve()
        try:
            head, body = await infer(
                _headers(scope),
                receive,
                service.router,
                named,
                service.max_body_bytes,
                service.memory,
                service.pool,
                reservation,
                service.limits,
            )
        except Exception as error:
            response = answer_error(Request(scope), error, service.router.observer.refused)
        except asyncio.CancelledError:
            response = _cut_off()
        else:
            await send({"type": "http.response.start", "status": 200, "headers": head})
            await send({"type": "http.response.body", "body": body})  # what is not taken at once, its connection counts from here
            return
        finally:
            reservation.release()
        await response(scope, receive, send)


async def infer(
    headers: Mapping[str, str],
    receive: Receive,
    router: Router,
    named: tuple[str, str],
    limit: int,
    memory: SharedMemory | None,
    pool: WorkPool,
    reservation: Reservation,
    limits: MessageLimits = USUAL,
) -> tuple[_Headers, bytes]:
    """Return headers and body of the answer to an inference request. headers: names in lower case. named: the model and its version.

    limit: bytes of the body. pool: where long ones are decoded and encoded. reservation: counts their bytes. limits: of what they hold.
    Raises what the router raises, QueueFull, and ClientDisconnect when nobody waits any more.
    """
    body = await read_body(headers, receive, limit, reservation)
    header_length = headers.get("inference-header-content-length")
    arrived = time.monotonic()
    if is_slow_to_decode(body, header_length):
        work = pool.run(
            lambda check: decode_request(*named, body, header_length, memory, arrived=arrived, check=check, limits=limits)
        )
        decoded, wanted = await cancel_on_disconnect(receive, work)
    else:
        decoded, wanted = decode_request(*named, body, header_length, memory, arrived=arrived, limits=limits)
    response = await cancel_on_disconnect(receive, router.infer(decoded))
    expected = expected_bytes(response, wanted)
    reservation.add(expected)
    if is_slow_to_encode(response, wanted):
        encoded = await cancel_on_disconnect(receive, pool.run(lambda check: encode_response(response, wanted, check)))
    else:
        encoded = encode_response(response, wanted)
    reservation.count(len(encoded.body) - expected)
    return await _respond(encoded, receive, headers.get("accept-encoding", ""))


def _headers(scope: Scope) -> Mapping[str, str]:
    """Return the headers; of one that is sent twice, the first, as the framework does."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}


async def _answer_by(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let `app` answer, or say that it was cut off before it began to."""
    begun = False

    async def note(message: Message) -> None:
        nonlocal begun
        begun = True
        await send(message)

    try:
        await app(scope, receive, note)
    except asyncio.CancelledError:
        if begun or scope["type"] != "http":
            raise
        await _cut_off()(scope, receive, send)


def _cut_off() -> Response:
    """Return what a request gets that the server cancels: it shuts down and has waited for as long as it was told to."""
    return error_response(NotReady("The server is shutting down, and did not finish this request in time; ask another server."))


def _named_model(scope: Scope) -> tuple[str, str] | None:
    """Return the model and version that an inference request names; None for other requests."""
    if scope["method"] != "POST" or not scope["path"].endswith("/infer"):
        return None
    # Undecoded, so that a "/" in a name is no separator.
    raw = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1").partition("?")[0]
    parts = raw.split("/")
    if "%" in raw:
        parts = [unquote(part) for part in parts]
    if parts[:3] != ["", "v2", "models"] or not all(parts[3:]):
        return None
    if len(parts) == 5:
        return parts[3], ""
    return (parts[3], parts[5]) if len(parts) == 7 and parts[4] == "versions" else None


async def _respond(encoded: EncodedResponse, receive: Receive, accept_encoding: str) -> tuple[_Headers, bytes]:
    body = encoded.body
    media_type = b"application/json" if encoded.json_bytes is None else b"application/octet-stream"
    headers = [(b"content-type", media_type)]
    if encoded.json_bytes is not None:
        headers.append((b"inference-header-content-length", str(encoded.json_bytes).encode()))
    compression = accepted_compression(accept_encoding, len(body))
    if compression:
        body = await cancel_on_disconnect(receive, compressed(body, compression))
        headers += [(b"content-encoding", compression.encode()), (b"vary", b"Accept-Encoding")]
    headers.append((b"content-length", str(len(body)).encode()))
    return headers, body
