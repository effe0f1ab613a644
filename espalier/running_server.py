"""A server in this process, as long as somebody keeps it."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from serving.process.ending import News
from serving.server import BackgroundServer, announce

log = logging.getLogger(__name__)


class RunningServer:
    """What `espalier.serve` returns: a server that answers until `close`, or the end of a `with` block.

    Whoever lets go of it without either stops it, and the log says so. options: as of `serving.server.Server`, whose errors are raised.
    """

    def __init__(self, repository: Path, **options: Any) -> None:
        self._open = False
        self._server = BackgroundServer(repository, **options)
        self._server.__enter__()
        self._open = True

    @property
    def http_address(self) -> str:
        """Return host:port of HTTP."""
        return self._server.http_address

    @property
    def grpc_address(self) -> str:
        """Return host:port of gRPC."""
        return self._server.grpc_address

    @property
    def url(self) -> str:
        """Return what `espalier.Client` takes."""
        return f"http://{self.http_address}"

    def wait(self) -> None:
        """Print the addresses, serve until SIGTERM or Ctrl-C, then finish what is in flight and return; to be called in the main thread."""
        with contextlib.closing(News()) as news, news.of_signals():
            announce(self.http_address, self.grpc_address)
            news.get()
            self.close()

    def close(self) -> None:
        """Refuse new requests, finish those in flight, release everything. Doing it again does nothing."""
        if self._open:
            self._open = False
            self._server.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if self._open:
            log.warning(
                "The server on %s stops, for nobody keeps what espalier.serve returned; use it in a with block, or call its wait().",
                self.http_address,
            )
            self.close()
