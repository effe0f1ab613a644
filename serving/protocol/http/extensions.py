"""Shared memory and settings over HTTP: the endpoints of the v2 protocol beyond inference and descriptions."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse

from contract.errors import InvalidRequest
from serving.protocol.describe import LOG_SETTINGS, TRACE_SETTINGS, refuse_changes
from serving.protocol.fields import optional, required
from serving.protocol.http.body import read_body
from serving.protocol.http.schemas import ErrorBody
from serving.protocol.shared_memory import MemoryKind, Region, SharedMemory, offered
from serving.router import Router

_MAX_BODY_BYTES = 64 * 1024
_RegionName = Annotated[str, Path(description="A shared memory region, by the name that the client gives it.")]
_NOT_OFFERED: dict[int | str, dict[str, Any]] = {501: {"model": ErrorBody}}
_CHANGES: dict[str, Any] = {
    "tags": ["settings"],
    "responses": _NOT_OFFERED,
    "openapi_extra": {
        "requestBody": {
            "description": "The settings to change. None may be: an empty object reads them.",
            "content": {"application/json": {"schema": {"type": "object"}, "example": {}}},
        }
    },
}
_ModelName = Annotated[str, Path(description="A model's name.")]
_REGION_DOCS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The object's key as for shm_open, and which of its bytes make the region.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["key", "byte_size"],
                    "properties": {
                        "key": {"type": "string"},
                        "offset": {"type": "integer", "minimum": 0, "default": 0},
                        "byte_size": {"type": "integer", "minimum": 1},
                    },
                },
                "example": {"key": "/images", "offset": 0, "byte_size": 150528},
            }
        },
    }
}


def add_settings(routes: APIRouter, router: Router) -> None:
    """Add the trace and log settings below /v2."""

    @routes.get("/logging", tags=["settings"], summary="The log settings")
    async def log_settings() -> JSONResponse:
        """Return the log settings under Triton's names."""
        return JSONResponse(LOG_SETTINGS)

    @routes.post("/logging", summary="Change the log settings (refused)", **_CHANGES)
    async def change_log_settings(request: Request) -> JSONResponse:
        """Return the log settings when the request changes nothing; they are fixed while the server runs."""
        refuse_changes("log", await read_object(request))
        return JSONResponse(LOG_SETTINGS)

    # Triton writes the trace level as a list and all else as strings.
    trace = {name: values if name == "trace_level" else values[0] for name, values in TRACE_SETTINGS.items()}

    @routes.get("/trace/setting", tags=["settings"], summary="The trace settings")
    async def trace_settings() -> JSONResponse:
        """Return the trace settings under Triton's names."""
        return JSONResponse(trace)

    @routes.post("/trace/setting", summary="Change the trace settings (refused)", **_CHANGES)
    async def change_trace_settings(request: Request) -> JSONResponse:
        """Return the trace settings when the request changes nothing; they are fixed while the server runs."""
        refuse_changes("trace", await read_object(request))
        return JSONResponse(trace)

    @routes.get("/models/{model}/trace/setting", tags=["settings"], summary="The trace settings of a model")
    async def model_trace_settings(model: _ModelName) -> JSONResponse:
        """Return the trace settings of a model, which are those of the server."""
        router.catalog.find(model)
        return JSONResponse(trace)

    @routes.post("/models/{model}/trace/setting", summary="Change the trace settings of a model (refused)", **_CHANGES)
    async def change_model_trace_settings(request: Request, model: _ModelName) -> JSONResponse:
        """Return the trace settings of a model when the request changes nothing."""
        router.catalog.find(model)
        return await change_trace_settings(request)


def add_shared_memory(routes: APIRouter, memory: SharedMemory | None) -> None:
    """Add system shared memory below /v2 (`memory` None: not offered), and CUDA's, which never is."""
    _add_regions(routes, "system", memory)
    _add_regions(routes, "cuda", None)


def _add_regions(routes: APIRouter, kind: MemoryKind, memory: SharedMemory | None) -> None:
    """Add the regions in one kind of memory. Where it is not offered, there are none, and none can be registered."""
    path, regions = f"/{kind}sharedmemory", memory or SharedMemory(0)
    tagged: dict[str, Any] = {"tags": ["shared memory"], "include_in_schema": kind == "system"}

    @routes.get(f"{path}/status", summary="All shared memory regions", **tagged)
    async def all_status() -> JSONResponse:
        """Return every region that is registered: name, key, offset and size in bytes."""
        return JSONResponse([_described(region) for region in regions.status()])

    @routes.get(f"{path}/region/{{region}}/status", summary="One shared memory region", **tagged)
    async def status(region: _RegionName) -> JSONResponse:
        """Return one region, in a list."""
        return JSONResponse([_described(found) for found in regions.status(region)])

    @routes.post(
        f"{path}/region/{{region}}/register",
        summary="Register a region",
        openapi_extra=_REGION_DOCS,
        responses=_NOT_OFFERED,
        **tagged,
    )
    async def register(request: Request, region: _RegionName) -> JSONResponse:
        """Let requests name bytes of a shared memory object of this machine as `region`."""
        into = offered(memory, kind)
        body, where = await read_object(request), "The request"
        into.register(
            region,
            required(body, "key", str, where),
            optional(body, "offset", int, where, 0),
            required(body, "byte_size", int, where),
        )
        return JSONResponse({})

    @routes.post(f"{path}/region/{{region}}/unregister", summary="Unregister a shared memory region", **tagged)
    async def unregister(region: _RegionName) -> JSONResponse:
        """Forget a region. Requests that use it go on; one that is not registered is no error."""
        regions.unregister(region)
        return JSONResponse({})

    @routes.post(f"{path}/unregister", summary="Unregister all shared memory regions", **tagged)
    async def unregister_all() -> JSONResponse:
        """Forget every region."""
        regions.unregister()
        return JSONResponse({})


async def read_object(request: Request) -> dict[str, Any]:
    """Return the JSON object in the body of `request`; none where it is empty."""
    try:
        value = json.loads(await read_body(request.headers, request.receive, _MAX_BODY_BYTES) or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("The request's body is not JSON.") from error
    if not isinstance(value, dict):
        raise InvalidRequest("The request's body is JSON, but not an object.")
    return value


def _described(region: Region) -> dict[str, str | int]:
    return {"name": region.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size}
