"""Has all Tritons serve something else: all of them, or, when one cannot, none. What is over is unloaded later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable

from contract.errors import EspalierError
from serving.engines.triton.control import TritonServer
from serving.engines.triton.errors import TritonUnreachable, said
from serving.engines.triton.fleet import Fleet
from serving.engines.triton.models import Files, TritonModels, converge
from serving.errors import EngineDown

log = logging.getLogger(__name__)


async def roll_out(fleet: Fleet, before: TritonModels, after: TritonModels, files: tuple[Files | None, Files | None]) -> None:
    """Have the servers of `fleet` go from `before` to `after`; files: for going back, and for going on, as `converge` takes them.

    Those that do not answer get it when they do. Raises EngineDown when none answers, RepositoryError when one cannot load a model;
    then all serve what they did before.
    """
    servers = list(fleet.servers.values())
    outcomes = await asyncio.gather(*(_outcome(converge(server, after, before, files[1])) for server in servers))
    gone = [server for server, error in zip(servers, outcomes, strict=True) if isinstance(error, TritonUnreachable)]
    for server in gone:
        fleet.readmit(server)
    if len(gone) == len(servers):
        raise EngineDown
    refused = next((error for error in outcomes if error is not None and not isinstance(error, TritonUnreachable)), None)
    if refused is not None:
        kept = [server for server in servers if server not in gone]
        await asyncio.gather(*(_go_back(fleet, server, before, after, files[0]) for server in kept))
        raise refused


async def unload(servers: Iterable[TritonServer], names: Iterable[str]) -> None:
    """Have `servers` unload these models, as far as they serve them. One that does not is said in the log, and does no harm."""
    for server in servers:
        for name in names:
            error = await _outcome(server.unload_if_there(name))
            if error is not None:
                log.warning("Model %r stays loaded in Triton: %s%s", name, error, said(error))


class Releases:
    """Has segments unloaded by `unload` when `keep_s` seconds have passed and nobody has needed them. Used from one event loop.

    Meanwhile other servers before the same Tritons, which are told of a deploy later, go on asking for them.
    """

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


async def _go_back(fleet: Fleet, server: TritonServer, before: TritonModels, after: TritonModels, files: Files | None) -> None:
    """Have `server` serve `before` once more. How far it came with `after`, it is asked."""
    if await _outcome(converge(server, before, None, files)) is not None:
        fleet.readmit(server)
        return
    over = (after.ensembles.keys() - before.ensembles.keys(), after.parts - before.parts)
    await unload([server], [name for names in over for name in sorted(names)])


async def _outcome(work: Awaitable[None]) -> EspalierError | None:
    try:
        await work
    except EspalierError as error:
        return error
    return None
