"""Segments that are over, and stay loaded for a while: for other servers before the same Tritons, which are told of a deploy later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable


class Releases:
    """Has segments unloaded by `unload` when `keep_s` seconds have passed and nobody has needed them. Used from one event loop."""

    def __init__(self, unload: Callable[[Collection[str]], Awaitable[None]], keep_s: float) -> None:
        self._unload = unload
        self._keep_s = keep_s
        self._over: dict[str, object] = {}  # segment -> whose it is to have it unloaded
        self._waiting: set[asyncio.Task[None]] = set()

    async def add(self, segments: Collection[str]) -> None:
        """Have `segments` unloaded later; without a `keep_s`, now."""
        if not self._keep_s:
            await self._unload(segments)
            return
        mine = object()
        self._over.update(dict.fromkeys(segments, mine))
        waiting = asyncio.create_task(self._wait(mine))
        self._waiting.add(waiting)
        waiting.add_done_callback(self._waiting.discard)

    def need(self, segments: Iterable[str]) -> None:
        """Keep `segments`, which are in use again."""
        for name in segments:
            self._over.pop(name, None)

    async def aclose(self) -> None:
        """Leave loaded what is still to be unloaded."""
        waiting = [*self._waiting]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        self._over.clear()

    async def _wait(self, mine: object) -> None:
        await asyncio.sleep(self._keep_s)
        segments = [name for name, whose in self._over.items() if whose is mine]
        self.need(segments)
        await self._unload(segments)
