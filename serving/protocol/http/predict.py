"""Images or texts in, answers out: the HTTP interface for people and scripts that speak no tensors."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from contract.errors import InvalidRequest
from contract.preprocessing import Preprocessing
from contract.units import quoted
from serving.answers.answer import Shown, Vectors
from serving.answers.shown import parse_shown
from serving.errors import BodyTooLarge, TextBodyTooLarge
from serving.images.decode import Picture, open_pictures
from serving.images.tasks import PreparedImages
from serving.images.workers import ImageWorkers
from serving.process.threads import to_thread
from serving.process.work_pool import Check
from serving.protocol.http.api_docs import predict_docs
from serving.protocol.http.body import read_body
from serving.protocol.http.cancel_on_disconnect import cancel_on_disconnect
from serving.protocol.http.multipart import is_form, read_files
from serving.protocol.http.schemas import (
    PredictBody,
    PredictFilesBody,
    PredictTextBody,
    PredictTextsBody,
    TasksBody,
    predict_body,
    predict_files_body,
    predict_text_body,
    predict_texts_body,
    tasks_body,
)
from serving.protocol.http.text_body import TextBody, is_json, read_text_body
from serving.protocol.http.v2 import ERRORS
from serving.protocol.memory_budget import MemoryBudget, Reservation
from serving.questions import CheckRoom
from serving.requests import RequestOptions, read_options
from serving.router import Router
from serving.text.limits import TextLimits

_TopK = Annotated[
    int | None,
    Query(
        ge=1,
        description="How many classes, or boxes, per task, best first. By default 5 classes, and as many boxes as the task says.",
    ),
]
_Vectors = Annotated[
    Vectors, Query(description="How embeddings are written: as a list, or as the base64 of little-endian float32.")
]
_Show = Annotated[
    list[str] | None,
    Query(description="What to show beside answers: logits, scores, preprocessing; several with commas, or each in a parameter."),
]
_TaskList = Annotated[
    list[str] | None,
    Query(
        description="Task names, separated by commas or each in a parameter `tasks` of its own. Left out: all that take images, or text."
    ),
]
_Timeout = Annotated[
    int, Query(ge=0, description="Microseconds from the whole body received until the answer is of no use any more; 0: no limit.")
]
_Priority = Annotated[int, Query(ge=0, description="1 goes first, and larger numbers later; 0: as if 2.")]
_Partial = Annotated[bool, Query(description="Whether tasks that fail are named in `errors` beside the others' answers.")]
_PredictAnswer = PredictTextBody | PredictBody | PredictTextsBody | PredictFilesBody
_OPTIONS = ("top_k", "vectors", "show", "timeout", "priority")
_LISTS = ("tasks", "show")


def predict_routes(router: Router, images: ImageWorkers, texts: TextLimits, budget: MemoryBudget) -> APIRouter:
    """Return the routes /tasks, /predict and /predict/{task}."""
    routes = APIRouter(responses=ERRORS, tags=["images and texts"])

    asked = _Asked(router, images, texts, budget)

    @routes.get("/tasks")
    async def list_tasks() -> TasksBody:
        """All tasks: labels, preprocessing, and what runs for them."""
        return tasks_body(router.repository)

    @routes.post("/predict", openapi_extra=predict_docs("/predict?top_k=3"))
    async def predict(
        request: Request,
        tasks: _TaskList = None,
        top_k: _TopK = None,
        vectors: _Vectors = "list",
        show: _Show = None,
        timeout: _Timeout = 0,
        priority: _Priority = 0,
        partial_results: _Partial = False,
    ) -> _PredictAnswer:
        """Answer about an image, the files of a form, or texts, for several tasks at once; what they share is computed once."""
        _check_query(request, ("tasks", *_OPTIONS, "partial_results"))
        names = None if tasks is None else [name.strip() for name in ",".join(tasks).split(",") if name.strip()]
        return await asked.answer(request, names, _Wanted(top_k, vectors, show), _parameters(timeout, priority, partial_results))

    @routes.post("/predict/{task}", openapi_extra=predict_docs("/predict/{task}?top_k=3"))
    async def predict_task(
        request: Request,
        task: Annotated[str, Path(description="A task's name; GET /tasks lists them.")],
        top_k: _TopK = None,
        vectors: _Vectors = "list",
        show: _Show = None,
        timeout: _Timeout = 0,
        priority: _Priority = 0,
    ) -> _PredictAnswer:
        """Answer about an image, the files of a form, or texts, for one task."""
        _check_query(request, _OPTIONS)
        return await asked.answer(request, [task], _Wanted(top_k, vectors, show), _parameters(timeout, priority))

    return routes


def _check_query(request: Request, known: Collection[str]) -> None:
    """Raise InvalidRequest for a parameter that is none, or has two values: what was meant would be passed over in silence."""
    counts = Counter(name for name, _ in request.query_params.multi_items())
    for name, count in counts.items():
        if name not in known:
            raise InvalidRequest(f"Unknown query parameter {name!r}; known are: {', '.join(known)}.")
        if count > 1 and name not in _LISTS:
            raise InvalidRequest(f"Query parameter {name!r} is given {count} times; give it once.")


def _parameters(timeout: int, priority: int, partial_results: bool = False) -> Mapping[str, object]:
    return {"timeout": timeout, "priority": priority, "partial_results": partial_results}


@dataclass(frozen=True)
class _Wanted:
    """How answers are wanted: see the query's parameters."""

    top_k: int | None
    vectors: Vectors
    show: list[str] | None

    @property
    def shown(self) -> tuple[Shown, ...]:
        """Return what is to be shown. Raises InvalidRequest."""
        return parse_shown(self.show or ())


class _Asked:
    """Answers questions about the images or texts in a request's body. budget: counts the body's bytes."""

    def __init__(self, router: Router, images: ImageWorkers, texts: TextLimits, budget: MemoryBudget) -> None:
        self._router = router
        self._images = images
        self._texts = texts
        self._budget = budget

    async def answer(
        self, request: Request, names: list[str] | None, wanted: _Wanted, parameters: Mapping[str, object]
    ) -> _PredictAnswer:
        """Return the answer to `request`. names: of tasks, None: all that take images, or texts."""
        with self._budget.reserve() as reservation:
            self._router.check_ready()
            content_type = request.headers.get("content-type", "")
            if is_json(content_type):
                return await self._answer_texts(request, reservation, names, wanted, parameters)
            limits = self._images.limits
            limit = limits.max_total_bytes if is_form(content_type) else limits.max_bytes
            body = await read_body(request.headers, request.receive, limit, reservation)
            sent = _SentImages(self._images, body, content_type)
            del body  # it is let go of when its pictures are opened
            work = self._answer_images(sent, names, wanted, read_options(parameters))
            return await cancel_on_disconnect(request.receive, work)

    async def _answer_texts(
        self,
        request: Request,
        reservation: Reservation,
        names: list[str] | None,
        wanted: _Wanted,
        parameters: Mapping[str, object],
    ) -> _PredictAnswer:
        try:
            body = await read_body(request.headers, request.receive, self._texts.texts_bytes, reservation)
        except BodyTooLarge as error:
            raise TextBodyTooLarge(self._texts.texts_bytes) from error
        asked = await to_thread(read_text_body, body, self._texts.texts)
        for name, in_query, in_body in (("tasks", names, asked.tasks), ("top_k", wanted.top_k, asked.top_k)):
            if in_query is not None and in_body is not None:
                raise InvalidRequest(f"{name!r} is given in the body and in the address; give it once.")
        names = names if asked.tasks is None else list(asked.tasks)
        wanted = wanted if asked.top_k is None else replace(wanted, top_k=asked.top_k)
        work = self._ask(asked, names, wanted, read_options(parameters))
        return await cancel_on_disconnect(request.receive, work)

    async def _ask(
        self, asked: TextBody, names: list[str] | None, wanted: _Wanted, options: RequestOptions
    ) -> PredictTextBody | PredictTextsBody:
        started = time.perf_counter()
        prediction = await self._router.predict_texts(
            asked.texts, names, wanted.top_k, options, truncate=asked.truncate, vectors=wanted.vectors, show=wanted.shown
        )
        total_s = time.perf_counter() - started
        return (
            predict_texts_body(prediction, len(asked.texts), total_s) if asked.is_list else predict_text_body(prediction, total_s)
        )

    async def _answer_images(
        self, sent: _SentImages, names: list[str] | None, wanted: _Wanted, options: RequestOptions
    ) -> _PredictAnswer:
        started = time.perf_counter()
        prediction = await self._router.predict_prepared(sent.prepare, names, wanted.top_k, options, wanted.vectors, wanted.shown)
        total_s = time.perf_counter() - started
        if sent.is_form:
            return predict_files_body(prediction, sent.names, total_s)
        return predict_body(prediction, total_s)


class _SentImages:
    """The images in a request's body: one file, or a form with several. names: of a form's files, when they have been read."""

    def __init__(self, workers: ImageWorkers, body: bytes, content_type: str) -> None:
        self.names: Sequence[str] = ()
        self._sizes: Sequence[tuple[int, int]] = ()
        self.is_form = is_form(content_type)
        self._workers = workers
        self._body = body
        self._content_type = content_type

    async def prepare(self, ways: Sequence[Preprocessing], check_room: CheckRoom) -> PreparedImages:
        """Return what each of `ways` makes of the images. Raises InvalidRequest, BodyTooLarge, QueueFull."""
        rows = await self._workers.rows(partial(self._open, ways, check_room), ways)
        return PreparedImages(rows, self._sizes)

    def _open(self, ways: Sequence[Preprocessing], check_room: CheckRoom, check: Check) -> list[Picture]:
        limits = self._workers.limits
        files = [("The body", "", self._body)]
        if self.is_form:
            found = read_files(self._body, self._content_type, limits.max_files, limits.max_bytes, check)
            self.names = [file.name for file in found]
            named = [(f"file {number} ({quoted(file.name)})", file.data) for number, file in enumerate(found, 1)]
            files = [(f"F{name[1:]}", f" in {name}", data) for name, data in named]
        self._body = b""  # the pictures have what is needed of it
        pictures = open_pictures(files, ways, limits, check)
        check_room(len(pictures))
        self._sizes = [(picture.width, picture.height) for picture in pictures]
        return pictures
