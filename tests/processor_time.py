"""What work costs, where a bound is on processor time: a busy machine, and what other tests left to collect, only ever add to it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TRIES = 5


@contextmanager
def without_collecting() -> Iterator[None]:
    """Collect no garbage inside: to look through what a process with thousands of tests holds takes as long as what is measured."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def least_s(work: Callable[[], object], enough_s: float = 0.0) -> float:
    """Return the least processor time, in seconds, that this thread has needed for `work` in some tries: `enough_s` ends them."""
    least = float("inf")
    for _ in range(_TRIES):
        with without_collecting():
            began = time.thread_time()
            work()
            least = min(least, time.thread_time() - began)
        if least < enough_s:
            break
    return least
