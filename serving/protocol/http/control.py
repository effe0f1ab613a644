"""Loading and unloading tasks over HTTP, for whoever has the token."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse

from serving.errors import BodyTooLarge
from serving.protocol.control import Admin, body_parameters, check_load, check_unload, files_not_taken
from serving.protocol.http.extensions import read_object
from serving.protocol.http.schemas import ErrorBody
from serving.router import Router

_TaskName = Annotated[str, Path(description="A task; `all_tasks` for loading exactly the tasks that are on disk.")]
_ERRORS: dict[int | str, dict[str, Any]] = {code: {"model": ErrorBody} for code in (400, 401, 403, 404, 413, 501, 503)}


def _docs(text: str, parameters: dict[str, Any]) -> dict[str, Any]:
    members = {"parameters": {"type": "object", "properties": parameters, "additionalProperties": False}}
    schema = {"type": "object", "properties": members, "additionalProperties": False}
    return {"requestBody": {"description": text, "content": {"application/json": {"schema": schema, "example": {}}}}}


_LOAD = _docs("None, or an object without parameters: what is loaded is what the repository on disk says.", {})
_UNLOAD = _docs(
    "None, or an object. A segment goes with the last task that needs it, whatever is said here.",
    {"unload_dependents": {"type": "boolean"}},
)


def control_routes(router: Router, admin: Admin) -> APIRouter:
    """Return the routes below /v2/repository/models, and the one that says whether they are open."""
    routes = APIRouter(prefix="/v2/repository", responses=_ERRORS, tags=["control"])

    @routes.get("/control", summary="May the caller load and unload models?")
    async def control(request: Request) -> JSONResponse:
        """Answer 200 where a load or unload with the same token is taken, and otherwise what that would be answered: for who deploys."""
        admin.check(request.headers.get("authorization"))
        return JSONResponse({})

    @routes.post("/models/{model}/load", summary="Serve a task as it is in the repository on disk now", openapi_extra=_LOAD)
    async def load(request: Request, model: _TaskName) -> JSONResponse:
        """Open what is new of the task, try it, and let it take the place of what was served; after a failure nothing has changed."""
        admin.check(request.headers.get("authorization"))
        try:
            check_load(body_parameters(await read_object(request)))
        except BodyTooLarge as error:  # nothing else is so large
            raise files_not_taken() from error
        await router.load(model)
        return JSONResponse({})

    @routes.post("/models/{model}/unload", summary="Serve a task no longer", openapi_extra=_UNLOAD)
    async def unload(request: Request, model: _TaskName) -> JSONResponse:
        """Let go of the task and of the segments that no other task needs, once the requests that use them are answered."""
        admin.check(request.headers.get("authorization"))
        check_unload(body_parameters(await read_object(request)))
        await router.unload(model)
        return JSONResponse({})

    return routes
