"""The one endpoint whose time counts: inference over HTTP, answered before the framework's routing, validation and documentation.

Measured with a tiny network, the framework costs several times what decoding a request and encoding its answer does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import NotReady, ServingError
from serving.protocol.body import accepted_compression, compress, read_body
from serving.protocol.http_errors import answer_error, error_response
from serving.protocol.json_codec import EncodedResponse, decode_request, encode_response
from serving.protocol.shared_memory import SharedMemory
from serving.router import Router

Result = TypeVar("Result")


class InferFront:
    """Answers POST /v2/models/MODEL[/versions/VERSION]/infer itself, and lets `app` answer everything else."""

    def __init__(self, app: ASGIApp, router: Router, max_body_bytes: int, memory: SharedMemory | None = None) -> None:
        self.app = app
        self._router = router
        self._max_body_bytes = max_body_bytes
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        named = _named_model(scope) if scope["type"] == "http" else None
        if named is None:
            await _answer_by(self.app, scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await infer(request, self._router, *named, self._max_body_bytes, self._memory)
        except (ServingError, ClientDisconnect) as error:
            response = await answer_error(request, error)
        except asyncio.CancelledError:
            response = _cut_off()
        await response(scope, receive, send)


async def infer(
    request: Request, router: Router, model: str, version: str, max_body_bytes: int, memory: SharedMemory | None
) -> Response:
    """Return the answer to an inference request. Raises what the router raises, and ClientDisconnect when nobody waits any more."""
    body = await read_body(request, max_body_bytes)
    headers = request.headers
    decoded, wanted = decode_request(model, version, body, headers.get("inference-header-content-length"), memory)
    encoded = encode_response(await while_wanted(request, router.infer(decoded)), wanted)
    return await _respond(encoded, headers.get("accept-encoding", ""))


async def while_wanted(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`; cancel it when the client hangs up. The request's body has been read.

    Raises ClientDisconnect, and what `work` raises.
    """
    task = asyncio.ensure_future(work)
    watchers = []
    try:
        await asyncio.sleep(0)
        if not task.done():  # short requests are answered by now, and need nobody to watch
            watchers.append(asyncio.ensure_future(_hung_up(request)))
            await asyncio.wait((task, *watchers), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for pending in (task, *watchers):
            pending.cancel()  # does nothing to one that is done


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


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _named_model(scope: Scope) -> tuple[str, str] | None:
    """Return the model and version that an inference request names; None for other requests."""
    if scope["method"] != "POST" or not scope["path"].endswith("/infer"):
        return None
    # Undecoded, so that a "/" in a name is no separator.
    raw = scope.get("raw_path") or scope["path"].encode()
    parts = raw.decode("latin-1").partition("?")[0].split("/")
    if parts[:3] != ["", "v2", "models"] or not all(parts[3:]):
        return None
    if len(parts) == 5:
        return unquote(parts[3]), ""
    return (unquote(parts[3]), unquote(parts[5])) if len(parts) == 7 and parts[4] == "versions" else None


async def _respond(encoded: EncodedResponse, accept_encoding: str) -> Response:
    headers = {}
    if encoded.json_bytes is not None:
        headers["Inference-Header-Content-Length"] = str(encoded.json_bytes)
    body = encoded.body
    compression = accepted_compression(accept_encoding, len(body))
    if compression:
        body = await asyncio.to_thread(compress, body, compression)
        headers |= {"Content-Encoding": compression, "Vary": "Accept-Encoding"}
    media_type = "application/json" if encoded.json_bytes is None else "application/octet-stream"
    return Response(body, headers=headers, media_type=media_type)
