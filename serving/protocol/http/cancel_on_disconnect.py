"""Gives up work whose client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive

_Result = TypeVar("_Result")
_PATIENCE_S = 0.005  # work that takes less is finished for nobody; to watch it would cost more than most of it


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Return the result of `work`; cancel it when the client hangs up. The request's body has been read from `receive`.

    Raises ClientDisconnect, and what `work` raises.
    """
    watch = _Watch(receive, asyncio.current_task())
    timer = asyncio.get_running_loop().call_later(_PATIENCE_S, watch.begin)
    try:
        return await work
    except asyncio.CancelledError:
        if watch.seen():
            raise ClientDisconnect from None
        raise
    finally:
        timer.cancel()
        watch.end()


class _Watch:
    """Cancels `waiting` when `receive` tells that the client has hung up."""

    def __init__(self, receive: Callable[[], Awaitable[Any]], waiting: asyncio.Task[Any] | None) -> None:
        self._receive = receive
        self._waiting = waiting
        self._watcher: asyncio.Task[None] | None = None
        self._hung_up = False

    def begin(self) -> None:
        """Watch from now on."""
        self._watcher = asyncio.ensure_future(self._wait())

    def end(self) -> None:
        """Watch no longer."""
        if self._watcher is not None:
            self._watcher.cancel()

    def seen(self) -> bool:
        """Return whether it was this watch that cancelled, and nobody else; then the cancelling is over."""
        return self._hung_up and self._waiting is not None and self._waiting.uncancel() == 0

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._hung_up = True
        if self._waiting is not None:
            self._waiting.cancel()
