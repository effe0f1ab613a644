"""Every HTTP error as {"error": sentence}, also those that the framework raises."""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Mount

from contract.errors import EspalierError
from serving.protocol.status import RETRY_AFTER_S, RETRY_LATER, sentence, wire_codes

log = logging.getLogger(__name__)
_Refused = Callable[[str], None]


def error_response(error: BaseException) -> JSONResponse:
    """Return `error` as a response."""
    headers = {"Retry-After": str(RETRY_AFTER_S)} if isinstance(error, RETRY_LATER) else None
    return JSONResponse({"error": sentence(error)}, wire_codes(error).http, headers)


def answer_error(request: Request, error: Exception, refused: _Refused) -> Response:
    """Return the response to `request` that failed, or whose client hung up; log it where it is ours to mend.

    refused: is told of the limit that has struck.
    """
    if isinstance(error, ClientDisconnect):
        return _no_answer()
    if wire_codes(error).http == 500:
        log.error("%s %s failed: %s", request.method, request.url.path, error, exc_info=error)
    if isinstance(error, EspalierError) and error.limit:
        refused(error.limit)
    return error_response(error)


def install_error_handlers(app: FastAPI, refused: _Refused) -> None:
    """Translate whatever the endpoints of `app` raise. refused: is told of the limits that strike."""

    async def ours(request: Request, error: Exception) -> Response:
        return answer_error(request, error, refused)

    app.add_exception_handler(EspalierError, ours)
    app.add_exception_handler(HTTPException, _frameworks)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(ClientDisconnect, ours)
    app.add_exception_handler(Exception, _unexpected)


async def _frameworks(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    if not isinstance(error, HTTPException):
        return error_response(error)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    path = request.url.path
    if error.status_code == 405:
        headers["allow"] = _offered(request) or headers.get("allow", "another method")
        text = f"{request.method} is not offered on {path}; use {headers['allow']}."
    elif (path.endswith("/") and path != "/") or "//" in path:
        text = f"There is nothing at {path}: no path ends in a slash or has two in a row. GET /docs lists what there is."
    else:
        text = f"There is nothing at {path}; GET /docs lists what there is."
    return JSONResponse({"error": text}, error.status_code, headers)


def _offered(request: Request) -> str:
    """Return the methods that any route has for the path of `request`; the framework names those of the first."""
    asked = {"type": "http", "path": request.scope["path"], "root_path": "", "headers": []}
    routes = [
        route for route in request.app.routes if not isinstance(route, Mount)
    ]  # which takes whatever comes, and says itself
    methods = {"GET": "GET, HEAD", "POST": "POST"}  # HEAD is answered as GET, see app.py
    found = [name for name in methods if any(route.matches({**asked, "method": name})[0] is Match.FULL for route in routes)]
    return ", ".join(methods[name] for name in found)


async def _invalid_parameter(request: Request, error: Exception) -> Response:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": ("request",), "msg": "invalid"}
    return JSONResponse({"error": f"Parameter {first['loc'][-1]!r}: {first['msg']}."}, 400)


def _no_answer() -> Response:
    return Response(status_code=499)  # nobody reads it: the client hung up while sending


async def _unexpected(request: Request, error: Exception) -> Response:
    return error_response(error)  # the server's outermost layer logs it with its trace
