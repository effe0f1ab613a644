"""Images in, labels out: the HTTP interface for people and scripts that speak no tensors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from PIL import Image

from serving.protocol.api_docs import image_docs
from serving.protocol.body import read_body
from serving.protocol.hang_up import while_wanted
from serving.protocol.http_v2 import ERRORS
from serving.protocol.images import ImageLimits, decode_files, decode_image
from serving.protocol.multipart import is_form, read_files
from serving.protocol.schemas import PredictBody, PredictFilesBody, TasksBody, predict_body, predict_files_body, tasks_body
from serving.router import Router
from serving.terms import Terms, read_terms

TopK = Annotated[int, Query(ge=1, description="How many classes per task, best first.")]
TaskList = Annotated[str | None, Query(description="Task names, separated by commas. Left out: all tasks.")]
Timeout = Annotated[
    int, Query(ge=0, description="Microseconds from the whole body received until the answer is of no use any more; 0: no limit.")
]
Priority = Annotated[int, Query(ge=0, description="1 goes first, and larger numbers later; 0: as if 2.")]
Partial = Annotated[bool, Query(description="Whether tasks that fail are named in `errors` beside the others' answers.")]
Answer = PredictBody | PredictFilesBody


def predict_routes(router: Router, limits: ImageLimits) -> APIRouter:
    """Return the routes /tasks, /predict and /predict/{task}."""
    routes = APIRouter(responses=ERRORS, tags=["images"])

    @routes.get("/tasks")
    async def list_tasks() -> TasksBody:
        """All tasks: labels, preprocessing, and what runs for them."""
        return tasks_body(router.repository)

    @routes.post("/predict", openapi_extra=image_docs("/predict?top_k=3"))
    async def predict(
        request: Request,
        tasks: TaskList = None,
        top_k: TopK = 5,
        timeout: Timeout = 0,
        priority: Priority = 0,
        partial_results: Partial = False,
    ) -> Answer:
        """Classify an image, or the files of a form, for several tasks at once; what they share is computed once."""
        names = None if tasks is None else [name.strip() for name in tasks.split(",") if name.strip()]
        return await _predict(router, request, limits, names, top_k, _parameters(timeout, priority, partial_results))

    @routes.post("/predict/{task}", openapi_extra=image_docs("/predict/{task}?top_k=3"))
    async def predict_task(
        request: Request,
        task: Annotated[str, Path(description="A task's name; GET /tasks lists them.")],
        top_k: TopK = 5,
        timeout: Timeout = 0,
        priority: Priority = 0,
    ) -> Answer:
        """Classify an image, or the files of a form, for one task."""
        return await _predict(router, request, limits, [task], top_k, _parameters(timeout, priority))

    return routes


def _parameters(timeout: int, priority: int, partial_results: bool = False) -> Mapping[str, object]:
    return {"timeout": timeout, "priority": priority, "partial_results": partial_results}


async def _predict(
    router: Router, request: Request, limits: ImageLimits, names: list[str] | None, top_k: int, parameters: Mapping[str, object]
) -> Answer:
    router.check_ready()
    content_type = request.headers.get("content-type", "")
    as_form = is_form(content_type)
    body = await read_body(request.headers, request.receive, limits.max_total_bytes if as_form else limits.max_bytes)
    terms = read_terms(parameters)
    return await while_wanted(request.receive, _answer(router, body, content_type, limits, names, top_k, terms))


async def _answer(
    router: Router, body: bytes, content_type: str, limits: ImageLimits, names: list[str] | None, top_k: int, terms: Terms
) -> Answer:
    started = time.perf_counter()
    files, images = await asyncio.to_thread(_decode, body, content_type, limits)
    decode_s = time.perf_counter() - started
    prediction = await router.predict(images, names, top_k, terms)
    total_s = time.perf_counter() - started
    if is_form(content_type):
        return predict_files_body(prediction, files, decode_s, total_s)
    return predict_body(prediction, decode_s, total_s)


def _decode(body: bytes, content_type: str, limits: ImageLimits) -> tuple[list[str], list[Image.Image]]:
    """Return the names of the files, none for an image that is sent as such, and the images."""
    if not is_form(content_type):
        return [], [decode_image(body, limits)]
    files = read_files(body, content_type, limits.max_files, limits.max_bytes)
    return [file.name for file in files], decode_files(files, limits)
