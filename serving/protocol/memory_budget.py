"""How many bytes of requests are held until they are answered, and of answers over gRPC until they have gone.

Each body has a limit of its own; this one is for all together.
"""

from __future__ import annotations

from types import TracebackType

from contract.system import available_memory_bytes
from serving.errors import QueueFull

_MOST_BYTES = 4 * 1024**3  # by default


def default_budget_bytes() -> int:
    """Return a quarter of the memory that this process may use, at most 4 GiB."""
    return min(available_memory_bytes() // 4 or _MOST_BYTES, _MOST_BYTES)


class MemoryBudget:
    """Counts the bytes of bodies and messages that have been received for requests which are not answered yet.

    limit_bytes: where more would be held, a request is refused, unless it is the only one; 0: no limit. Of one event loop;
    `bytes` may be read from any thread.
    """

    def __init__(self, limit_bytes: int = 0) -> None:
        self.bytes = 0
        self._limit_bytes = limit_bytes

    def reserve(self) -> Reservation:
        """Return what counts the bytes of one request: a context manager that lets go of them at its end, however it ends."""
        return Reservation(self)

    def check_room(self, held: int, size: int) -> None:
        """Raise QueueFull when a request that holds `held` bytes may not hold `size`."""
        others = self.bytes - held
        if others and 0 < self._limit_bytes < others + size:
            raise QueueFull(others, self._limit_bytes, "bytes of requests")


class Reservation:
    """The bytes of one request. Made by `MemoryBudget.reserve`."""

    __slots__ = ("_budget", "_bytes")

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._bytes = 0

    def expect(self, size: int) -> None:
        """Raise QueueFull when there is no room for `size` bytes now. They are counted when they come: a promise takes no memory."""
        self._budget.check_room(self._bytes, size)

    def resize(self, size: int) -> None:
        """Count `size` bytes in place of those counted so far. Raises QueueFull; then those stay counted until the end."""
        self._budget.check_room(self._bytes, size)
        self.turn_into(size)

    def add(self, size: int) -> None:
        """Count `size` bytes more, of an answer before it is written. Raises QueueFull when there is no room for them."""
        self.resize(self._bytes + size)

    def turn_into(self, size: int) -> None:
        """Count the `size` bytes of the answer in place of those counted so far. They are there, whether there is room or not."""
        self._budget.bytes += size - self._bytes
        self._bytes = size

    def count(self, size: int) -> None:
        """Count `size` bytes more, that are there already: those to come are refused for them."""
        self.turn_into(self._bytes + size)

    def release(self) -> None:
        """Count nothing any more."""
        self.turn_into(0)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
