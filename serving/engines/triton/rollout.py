"""Has all Tritons serve something else: all of them, or, when one cannot, none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable

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
