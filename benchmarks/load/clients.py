"""The clients' process, away from the server's cores where there are enough."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

_ENOUGH = 4
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Cores:
    """Cores by number. shared: whether the clients have none of their own."""

    server: tuple[int, ...]
    clients: tuple[int, ...]

    @property
    def shared(self) -> bool:
        """Whether server and clients use the same cores."""
        return self.server == self.clients

    @property
    def words(self) -> str:
        """Return it for people."""
        if self.shared:
            return f"Server and clients share {len(self.server)} cores, which costs the server throughput."
        return f"The server has {len(self.server)} cores, the clients have {len(self.clients)} others."


def split_cores(cores: Sequence[int]) -> Cores:
    """Return a quarter of `cores` for the clients, at least one; all for both where there are fewer than four."""
    if len(cores) < _ENOUGH:
        return Cores(tuple(cores), tuple(cores))
    mine = len(cores) // 4
    return Cores(tuple(cores[:-mine]), tuple(cores[-mine:]))


def find_cores() -> Cores:
    """Return how the cores of this process are divided."""
    return split_cores(sorted(os.sched_getaffinity(0)))


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Keep this thread, and what it starts meanwhile, on `cores`."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Clients:
    """A process in which functions are run, one at a time."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def run(self, function: Callable[[Any], _Value], job: Any) -> _Value:
        """Return what `function` (of a module) gives for `job` in that process. Raises what it raises."""
        return self._pool.submit(function, job).result()


@contextmanager
def clients_on(cores: Sequence[int]) -> Iterator[Clients]:
    """Yield a process on `cores`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=os.sched_setaffinity, initargs=(0, cores)) as pool:
        yield Clients(pool)
