"""The HTTP application."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from fastapi.responses import PlainTextResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.images.workers import ImageWorkers
from serving.observe.prometheus import CONTENT_TYPE, Metrics
from serving.page.page import Page
from serving.page.routes import page_routes
from serving.process.threads import to_thread
from serving.protocol.control import Admin
from serving.protocol.describe import server_metadata
from serving.protocol.http.api_docs import add_docs_page, document
from serving.protocol.http.control import control_routes
from serving.protocol.http.errors import install_error_handlers
from serving.protocol.http.predict import predict_routes
from serving.protocol.http.v2 import v2_routes
from serving.protocol.memory_budget import MemoryBudget
from serving.protocol.shared_memory import SharedMemory
from serving.router import Router
from serving.text.limits import TextLimits

_DESCRIPTION = """Many tasks on one trunk: a request runs what the tasks share once.
`POST /predict` takes an image, or text as JSON; everything below `/v2` speaks the v2 inference protocol (tritonclient)."""


def create_app(
    router: Router,
    *,
    images: ImageWorkers | None = None,
    texts: TextLimits | None = None,
    memory: SharedMemory | None = None,
    metrics: Metrics | None = None,
    admin: Admin | None = None,
    budget: MemoryBudget | None = None,
    page: Page | None = None,
) -> FastAPI:
    """Return the application that answers for `router`, which somebody else starts and closes.

    images: who decodes them, None: threads of its own. texts: limits of those that are sent, None: the usual ones.
    memory: system shared memory; None: not offered. metrics: what GET /metrics tells; None: there is no such path.
    admin: who may load and unload models; None: nobody. budget: counts the bytes of bodies; None: without a limit.
    page: for people, at `/`; None: there is none.
    """
    budget = budget or MemoryBudget()
    # Its own pages name their parts from the root, and ReDoc's shows a picture from elsewhere; a redirected POST is a lost one.
    app: FastAPI = FastAPIOffline(
        None, None, title="espalier", version=server_metadata().version, description=_DESCRIPTION, redirect_slashes=False
    )
    app.add_middleware(_HeadAsGet)
    # Routes are tried in order. First those of images, because the requests for inference never come here (InferFront).
    app.include_router(predict_routes(router, images or ImageWorkers(), texts or TextLimits(), budget))
    app.include_router(v2_routes(router, memory))
    app.include_router(control_routes(router, admin or Admin()))
    if metrics is not None:
        app.include_router(_metrics_routes(metrics))
    if page is not None:
        app.include_router(page_routes(router, page))
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


class _HeadAsGet:
    """`app`, which sees GET for HEAD: the HTTP server, which knows what was asked, leaves the body of the answer out."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self._app({**scope, "method": "GET"} if is_head else scope, receive, send)


def _metrics_routes(metrics: Metrics) -> APIRouter:
    """Return the route that Prometheus asks."""
    routes = APIRouter(tags=["statistics"])

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def get_metrics() -> Response:
        """Return every metric in Prometheus' text format; docs/reference/metrics.md lists them."""
        # In a thread: with thousands of tasks it takes long enough to be felt by requests.
        return Response(await to_thread(metrics.text), media_type=CONTENT_TYPE)

    return routes
