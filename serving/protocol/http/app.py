"""The HTTP application."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Message

from serving.images.workers import ImageWorkers
from serving.observe.endpoint import metrics_routes
from serving.observe.prometheus import Metrics
from serving.protocol.admin import Admin
from serving.protocol.describe import server_metadata
from serving.protocol.http.api_docs import add_docs_page, document
from serving.protocol.http.control import control_routes
from serving.protocol.http.errors import install_error_handlers
from serving.protocol.http.head import HeadAsGet
from serving.protocol.http.predict import predict_routes
from serving.protocol.http.v2 import v2_routes
from serving.protocol.memory_budget import PendingBytes
from serving.protocol.shared_memory import SharedMemory
from serving.router import Router

MAX_BODY_BYTES = 64 * 1024 * 1024
_DESCRIPTION = """Many tasks on one trunk: a request runs what the tasks share once.
`POST /predict` takes an image; everything below `/v2` speaks the v2 inference protocol (tritonclient)."""


def create_app(
    router: Router,
    *,
    max_body_bytes: int = MAX_BODY_BYTES,
    images: ImageWorkers | None = None,
    memory: SharedMemory | None = None,
    metrics: Metrics | None = None,
    admin: Admin | None = None,
    pending: PendingBytes | None = None,
) -> FastAPI:
    """Return the application that answers for `router`, which somebody else starts and closes.

    max_body_bytes: the largest request, counted after decompression. images: who decodes them, None: threads of its own.
    memory: system shared memory; None: not offered. metrics: what GET /metrics tells; None: there is no such path.
    admin: who may load and unload models; None: nobody. pending: counts the bytes of bodies; None: without a limit.
    """
    pending = pending or PendingBytes()
    # Its own pages name their parts from the root, and ReDoc's shows a picture from elsewhere; a redirected POST is a lost one.
    app: FastAPI = FastAPIOffline(
        None, None, title="espalier", version=server_metadata().version, description=_DESCRIPTION, redirect_slashes=False
    )
    app.add_middleware(HeadAsGet)
    # Routes are tried in order. First those of images, because the requests for inference never come here (InferFront).
    app.include_router(predict_routes(router, images or ImageWorkers(), pending))
    app.include_router(v2_routes(router, max_body_bytes, memory, pending))
    app.include_router(control_routes(router, admin or Admin()))
    if metrics is not None:
        app.include_router(metrics_routes(metrics))
    install_error_handlers(app, router.observer.refused)
    add_docs_page(app)
    document(app, router)
    return app


async def warm_up(app: ASGIApp) -> None:
    """Have `app` make what it makes at its first request, which takes 40 ms, while nobody waits for it."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    path = "/nowhere"
    line = {
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
    }
    await app({"type": "http", "asgi": {"version": "3.0"}, "headers": [], "root_path": "", **line}, receive, send)
