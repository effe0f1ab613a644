"""Who computes what at the moment, so that others wait for it rather than compute it, too. Of one event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self

from contract.dtypes import Array
from serving.errors import DeadlineExceeded

_MOST_FOLLOWERS = 64  # of one flight; who comes then goes to the engine's queue, which knows whom to refuse

Landed = Mapping[bytes, Array]  # what came of a flight: nothing, when it failed


class Flight:
    """One request on its way, and the keys of the tensors that it will compute. To be left as a context, whatever happens in it."""

    def __init__(self, keys: Iterable[bytes], flights: Flights) -> None:
        self.keys = tuple(keys)
        self.followers = 0
        self._flights = flights
        self._landed: asyncio.Future[Landed] = asyncio.get_running_loop().create_future()

    def land(self, values: Landed) -> None:
        """Give `values`, of some of the keys, to those that wait."""
        self._flights.over(self)
        if not self._landed.done():
            self._landed.set_result(values)

    @property
    def landed(self) -> asyncio.Future[Landed]:
        """Return what will have come of it; it never fails, and is not to be cancelled."""
        return self._landed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.land({})


class Flights:
    """The flights under way. Who flies waits for nobody, so that no two wait for each other."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, Flight] = {}

    def begin(self, keys: Iterable[bytes]) -> Flight:
        """Begin one for those of `keys` that are in none."""
        flight = Flight((key for key in keys if key not in self._under_way), self)
        self._under_way.update(dict.fromkeys(flight.keys, flight))
        return flight

    def over(self, flight: Flight) -> None:
        """Have nobody wait for `flight` from now on."""
        for key in flight.keys:
            if self._under_way.get(key) is flight:
                del self._under_way[key]

    async def landed(self, keys: Iterable[bytes], deadline: float | None) -> Landed | None:
        """Wait for all that compute some of `keys`, and return what came of them; None: nobody does, or too many wait already.

        deadline: in time.monotonic seconds, None: none. Raises DeadlineExceeded.
        """
        flights = {flight for key in keys if (flight := self._under_way.get(key)) is not None}
        if not flights or any(flight.followers >= _MOST_FOLLOWERS for flight in flights):
            return None
        for flight in flights:
            flight.followers += 1
        try:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            done, pending = await asyncio.wait([flight.landed for flight in flights], timeout=left_s)
        finally:
            for flight in flights:
                flight.followers -= 1
        if pending:
            raise DeadlineExceeded
        return {key: values for landed in done for key, values in landed.result().items()}
