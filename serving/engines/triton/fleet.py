"""The Tritons that there are: found by name, taken in when they serve what they should, left out when they do not answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from contract.errors import EspalierError, RepositoryError
from serving.engines.triton.addresses import Address, resolve
from serving.engines.triton.channels import TritonChannel
from serving.engines.triton.control import TritonServer
from serving.engines.triton.errors import TritonUnreachable, most_telling, said

log = logging.getLogger(__name__)
_POLL_S = 0.25
_REFUSED_S = 5.0  # until one that could not be brought to serve what it should is tried again
_Admit = Callable[[TritonServer, Callable[[], None]], Awaitable[None]]
_Resolve = Callable[[Address], Awaitable[frozenset[Address]]]


class Fleet:
    """Watches the Tritons at `addresses`, each of which `resolve` turns into several, names anew every `resolve_s` seconds.

    admit(server, enter): has `server` serve what it should, then calls `enter`; raises EspalierError. leave(address): one that has
    entered is left out. Used from one event loop.
    channel: the way to all servers that have been admitted and answer; None when there are none.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        admit: _Admit,
        resolve_s: float = 5.0,
        resolve: _Resolve = resolve,
        leave: Callable[[Address], None] = lambda address: None,
    ) -> None:
        self._addresses = addresses
        self._admit = admit
        self._resolve_s = resolve_s
        self._resolve = resolve
        self._left = leave
        self._servers: dict[Address, TritonServer] = {}
        self._watches: dict[Address, asyncio.Task[None]] = {}
        self._problems: dict[Address, EspalierError] = {}
        self._resolving: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()  # channels that are still in use
        self._is_closing = False
        self._news = asyncio.Event()
        self.channel: TritonChannel | None = None

    @property
    def servers(self) -> Mapping[Address, TritonServer]:
        """Return those that are admitted and answer."""
        return dict(self._servers)

    async def start(self, wait_s: float) -> None:
        """Return when a server is admitted. Raises TritonUnreachable after `wait_s`, RepositoryError when each that answers refuses."""
        self._resolving = asyncio.create_task(self._resolve_forever())
        try:
            async with asyncio.timeout(wait_s):
                while not self._servers:
                    await self._news.wait()
                    self._news.clear()
                    self._raise_if_hopeless()
        except TimeoutError:
            where = ", ".join(f"grpc://{address}" for address in self._addresses)
            raise most_telling(self._problems.values()) or TritonUnreachable(where, "not in time") from None

    async def aclose(self) -> None:
        """Watch no longer; finish what is in flight."""
        self._is_closing = True
        watching = [*self._watches.values(), *([self._resolving] if self._resolving else [])]
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        self._watches.clear()
        self._servers.clear()
        self._renew()
        while self._ending:
            await asyncio.wait(self._ending)

    def readmit(self, server: TritonServer) -> None:
        """Leave `server` out until it has been admitted once more."""
        watch = self._watches.pop(server.address, None)
        if watch is not None:
            watch.cancel()
            self._watches[server.address] = asyncio.create_task(self._watch(server.address))

    def _raise_if_hopeless(self) -> None:
        refused = len(self._problems) == len(self._watches) > 0
        if refused and all(isinstance(problem, RepositoryError) for problem in self._problems.values()):
            raise next(iter(self._problems.values()))

    async def _resolve_forever(self) -> None:
        found: dict[Address, frozenset[Address]] = {}
        while True:
            for address in self._addresses:
                try:
                    found[address] = await self._resolve(address)
                    self._problems.pop(address, None)
                except OSError as error:  # what was found before may be there still
                    reason = f"the name cannot be resolved: {error.strerror or error}"
                    if address not in found:
                        self._note(address, TritonUnreachable(f"grpc://{address}", reason))
            self._watch_only(address for addresses in found.values() for address in addresses)
            if all(address.is_number for address in self._addresses):
                return
            await asyncio.sleep(self._resolve_s)

    def _watch_only(self, addresses: Iterable[Address]) -> None:
        wanted = set(addresses)
        for address in self._watches.keys() - wanted:
            self._watches.pop(address).cancel()
        for address in wanted - self._watches.keys():
            self._watches[address] = asyncio.create_task(self._watch(address))

    async def _watch(self, address: Address) -> None:
        """Take in the server at `address` whenever it is there, and leave it out when it is not: a watch's life."""
        server = TritonServer(address)
        try:
            while True:
                await asyncio.sleep(await self._attend(server))
        finally:
            self._leave(server)
            self._problems.pop(address, None)
            await server.aclose()

    async def _attend(self, server: TritonServer) -> float:
        """_Admit `server` and return when it does not answer any more; return how many seconds to wait before the next attempt."""
        try:
            await self._admit(server, lambda: self._enter(server))
            while await server.is_alive():
                await asyncio.sleep(_POLL_S)
            self._note(server.address, TritonUnreachable(f"grpc://{server.address}", "it does not answer"))
        except EspalierError as error:
            self._note(server.address, error)
            return _REFUSED_S if isinstance(error, RepositoryError) else _POLL_S
        finally:
            self._leave(server)
        return 0.0

    def _enter(self, server: TritonServer) -> None:
        log.info("Triton at %s serves.", server.address)
        self._problems.pop(server.address, None)
        self._servers[server.address] = server
        self._renew()

    def _leave(self, server: TritonServer) -> None:
        if self._servers.get(server.address) is server:
            del self._servers[server.address]
            self._left(server.address)
            self._renew()

    def _renew(self) -> None:
        """Make the channel that leads to the servers of now; the old one ends with its last request."""
        old, self.channel = self.channel, TritonChannel(self._servers) if self._servers and not self._is_closing else None
        if old is not None:
            ending = asyncio.create_task(old.aclose())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
        self._news.set()

    def _note(self, address: Address, problem: EspalierError) -> None:
        if str(self._problems.get(address)) != str(problem):
            log.warning("%s%s", problem, said(problem) if isinstance(problem, RepositoryError) else "")
        self._problems[address] = problem
        self._news.set()
