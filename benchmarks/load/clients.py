"""The clients' process, away from the server's cores where there are enough."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from benchmarks.harness.pinning import pin

_Value = TypeVar("_Value")


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
    with ProcessPoolExecutor(1, context, initializer=pin, initargs=(cores,)) as pool:
        yield Clients(pool)
