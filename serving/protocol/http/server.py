"""HTTP as a front end: connections within limits, inference before the framework, and the application for all else."""

from __future__ import annotations

import contextlib

from serving.images.decode import ImageLimits
from serving.images.workers import ImageWorkers
from serving.observe.asgi import RequestMiddleware
from serving.process.sockets import listening_socket
from serving.protocol.front_end import Service
from serving.protocol.http.app import create_app, warm_up
from serving.protocol.http.connection.limits import HttpLimits
from serving.protocol.http.connection.server import HttpServer
from serving.protocol.http.infer import InferFront
from serving.text.limits import TextLimits


class HttpFrontEnd:
    """HTTP on `host`:`port`, 0: any free port. limits: of connections. images, texts: of those that are sent to be classified."""

    def __init__(self, host: str, port: int, limits: HttpLimits, images: ImageLimits, texts: TextLimits) -> None:
        self.port = port
        self._host = host
        self._limits = limits
        self._image_limits = images
        self._text_limits = texts
        self._server: HttpServer | None = None
        self._closing = contextlib.AsyncExitStack()

    async def start(self, service: Service) -> None:
        """Take the port and answer for `service` on it. Raises AddressInUse, InvalidAddress; then nothing stays behind."""
        async with contextlib.AsyncExitStack() as stack:
            listener = stack.enter_context(contextlib.closing(listening_socket(self._host, self.port)))
            images = stack.enter_context(ImageWorkers(self._image_limits))
            observer = service.router.observer
            app = create_app(
                service.router,
                images=images,
                texts=self._text_limits,
                memory=service.memory,
                metrics=service.metrics,
                admin=service.admin,
                budget=service.budget,
                page=service.page,
            )
            await warm_up(app)
            service.metrics.watch_images(lambda: images.waiting_pixels)
            front = RequestMiddleware(InferFront(app, service), observer)
            self._server = HttpServer(front, listener, 0.0, self._limits, observer.refused, service.budget)
            self.port = listener.getsockname()[1]
            await self._server.start()
            self._closing = stack.pop_all()

    async def aclose(self, grace_s: float) -> None:
        """Take no more requests, finish those in flight within `grace_s` seconds, and let go of the port."""
        async with self._closing:
            if self._server is not None:
                await self._server.aclose(grace_s)
                self._server = None
