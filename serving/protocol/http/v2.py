"""The v2 inference protocol over HTTP. Endpoints translate and delegate."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.responses import JSONResponse, Response

from serving.catalog import Model
from serving.protocol import describe
from serving.protocol.fields import optional
from serving.protocol.http.api_docs import INFER_SCHEMA
from serving.protocol.http.extensions import add_settings, add_shared_memory, read_object
from serving.protocol.http.schemas import ErrorBody
from serving.protocol.shared_memory import SharedMemory
from serving.router import Router

_ModelName = Annotated[str, Path(description="A task, `all_tasks` (one output per task), or a segment.")]
_Version = Annotated[str, Path(description="The model's version: the current one, or a canary's.")]

_TENSORS = {
    "application/json": {"schema": INFER_SCHEMA},
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
}
_INFER_DOCS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "JSON, or JSON followed by binary tensors (header Inference-Header-Content-Length).",
        "content": _TENSORS,
    }
}
_INDEX_DOCS: dict[str, Any] = {
    "requestBody": {
        "description": "None, or an object. ready: true for those alone that are.",
        "content": {
            "application/json": {
                "schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
                "example": {"ready": True},
            }
        },
    }
}
ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": ErrorBody} for code in (400, 404, 413, 429, 503, 504)}


def v2_routes(router: Router, memory: SharedMemory | None) -> APIRouter:
    """Return the routes below /v2 that answer for `router`, with system shared memory unless `memory` is None."""
    routes = APIRouter(prefix="/v2", responses=ERRORS)
    _add_health(routes, router)
    _add_descriptions(routes, router, memory is not None)
    _describe_inference(routes)
    add_settings(routes, router)
    add_shared_memory(routes, memory)
    return routes


def _add_health(routes: APIRouter, router: Router) -> None:
    @routes.get("/health/live", tags=["health"], summary="Does the process answer?")
    async def live() -> JSONResponse:
        """Answer as long as the process lives, also while it loads its models or shuts down."""
        return JSONResponse({"live": True})

    @routes.get("/health/ready", tags=["health"], summary="Are the models loaded?")
    async def ready() -> JSONResponse:
        """Answer 200 when every model is loaded and warm, and 503 before that, and while the files of one cannot be opened.

        A server that is told to stop answers 503 for a tenth of a second at most; then its port is closed: connections are refused.
        """
        router.check_all_ready()
        return JSONResponse({"ready": True})

    @routes.get("/models/{model}/versions/{version}/ready", tags=["health"], summary="Is this version loaded?")
    async def version_ready(model: _ModelName, version: _Version) -> JSONResponse:
        """Answer 200 when this version of the model answers requests."""
        found = router.catalog.find(model, version)
        router.check_model_ready(found)
        return JSONResponse({"name": found.name, "ready": True})

    @routes.get("/models/{model}/ready", tags=["health"], summary="Is this model loaded?")
    async def model_ready(model: _ModelName) -> JSONResponse:
        """Answer 200 when the model answers requests."""
        return await version_ready(model, "")


def _add_descriptions(routes: APIRouter, router: Router, shared_memory: bool) -> None:
    @routes.get("", tags=["metadata"], summary="The server's name, version and extensions")
    async def server_metadata() -> JSONResponse:
        """Return what the server is called, its version, and which extensions of the v2 protocol it offers."""
        return JSONResponse(describe.to_json(describe.server_metadata(shared_memory=shared_memory)))

    # Before the routes of one model, which would take "stats" for a name.
    @routes.get("/models/stats", tags=["statistics"], summary="Statistics of all models")
    async def all_statistics() -> JSONResponse:
        """Return, of every task, its requests, and of every segment, its runs for whatever task."""
        await router.refresh()
        return JSONResponse(describe.to_json(describe.model_statistics(router, router.catalog.all_versions())))

    @routes.post("/repository/index", tags=["metadata"], summary="All models", openapi_extra=_INDEX_DOCS)
    async def repository_index(request: Request) -> JSONResponse:
        """Return the name, version and state of every model: tasks, `all_tasks` and segments; and of those that cannot be served, why."""
        only_ready = optional(await read_object(request), "ready", bool, "The request", False)
        return JSONResponse(describe.to_json(describe.repository_index(router, only_ready))["models"])

    async def metadata(model: Model) -> Any:
        """Return names, types and shapes of a model's inputs and outputs; -1 stands for the rows."""
        return describe.model_metadata(model)

    async def config(model: Model) -> Any:
        """Return the model's config.pbtxt as JSON."""
        return describe.model_config(router, model)

    async def statistics(model: Model) -> Any:
        """Return the requests that a task has had, or the runs of a segment for whatever task."""
        await router.refresh()
        return describe.model_statistics(router, [model])

    for suffix, tag, summary, message in (
        ("", "metadata", "Inputs and outputs of a model", metadata),
        ("/config", "metadata", "A model's configuration, as Triton writes it", config),
        ("/stats", "statistics", "Statistics of a model", statistics),
    ):
        _add_description(routes, router, suffix, tag, summary, message)


def _add_description(routes: APIRouter, router: Router, suffix: str, tag: str, summary: str, message: Any) -> None:
    @routes.get(f"/models/{{model}}/versions/{{version}}{suffix}", tags=[tag], summary=summary, description=message.__doc__)
    async def of_version(model: _ModelName, version: _Version) -> JSONResponse:
        return JSONResponse(describe.to_json(await message(router.catalog.find(model, version))))

    @routes.get(f"/models/{{model}}{suffix}", tags=[tag], summary=summary, description=message.__doc__)
    async def of_model(model: _ModelName) -> JSONResponse:
        return await of_version(model, "")


def _describe_inference(routes: APIRouter) -> None:
    """Add the paths of inference, for the documentation: their requests are answered before they come here (InferFront)."""

    @routes.post("/models/{model}/versions/{version}/infer", tags=["inference"], openapi_extra=_INFER_DOCS)
    async def infer_version(model: _ModelName, version: _Version) -> Response:
        """Run a model on tensors. The outputs that are requested choose what runs; none requested means all."""
        raise HTTPException(404)

    @routes.post("/models/{model}/infer", tags=["inference"], openapi_extra=_INFER_DOCS)
    async def infer(model: _ModelName) -> Response:
        """Run a model on tensors. The outputs that are requested choose what runs; none requested means all."""
        raise HTTPException(404)
