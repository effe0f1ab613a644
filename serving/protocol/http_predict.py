"""Images in, labels out: the HTTP interface for people and scripts that speak no tensors."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request

from serving.errors import InvalidRequest
from serving.protocol.body import read_body
from serving.protocol.http_v2 import ERRORS
from serving.protocol.images import ImageLimits, decode_image
from serving.protocol.schemas import PredictBody, TasksBody, predict_body, tasks_body
from serving.router import Router

TopK = Annotated[int, Query(ge=1, description="How many classes per task, best first.")]
TaskList = Annotated[str | None, Query(description="Task names, separated by commas. Left out: all tasks.")]
_IMAGE_DOCS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of a PNG, JPEG, WebP, GIF or BMP file.",
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def predict_routes(router: Router, limits: ImageLimits) -> APIRouter:
    """Return the routes /tasks, /predict and /predict/{task}."""
    routes = APIRouter(responses=ERRORS, tags=["images"])

    @routes.get("/tasks")
    async def list_tasks() -> TasksBody:
        """All tasks: labels, preprocessing, and what runs for them."""
        return tasks_body(router.repository)

    @routes.post("/predict", openapi_extra=_IMAGE_DOCS)
    async def predict(request: Request, tasks: TaskList = None, top_k: TopK = 5) -> PredictBody:
        """Classify an image for several tasks at once; what they share is computed once."""
        names = list(router.repository.tasks) if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
        return await _predict(router, request, limits, names, top_k)

    @routes.post("/predict/{task}", openapi_extra=_IMAGE_DOCS)
    async def predict_task(
        request: Request, task: Annotated[str, Path(description="A task's name; GET /tasks lists them.")], top_k: TopK = 5
    ) -> PredictBody:
        """Classify an image for one task."""
        return await _predict(router, request, limits, [task], top_k)

    return routes


async def _predict(router: Router, request: Request, limits: ImageLimits, names: list[str], top_k: int) -> PredictBody:
    router.check_ready()
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise InvalidRequest("Send the image's bytes themselves as the body (curl --data-binary @FILE), not a form.")
    body = await read_body(request, limits.max_bytes)
    started = time.perf_counter()
    image = await asyncio.to_thread(decode_image, body, limits)
    prediction = await router.predict([image], names, top_k)
    return predict_body(prediction, (time.perf_counter() - started) * 1000)
