"""GET /metrics."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from serving.observe.prometheus import CONTENT_TYPE, Metrics
from serving.process.threads import to_thread


def metrics_routes(metrics: Metrics) -> APIRouter:
    """Return the route that Prometheus asks."""
    routes = APIRouter(tags=["statistics"])

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=PlainTextResponse)
    async def get_metrics() -> Response:
        """Return every metric in Prometheus' text format; docs/metrics.md lists them."""
        # In a thread: with thousands of tasks it takes long enough to be felt by requests.
        return Response(await to_thread(metrics.text), media_type=CONTENT_TYPE)

    return routes
