"""Several trainings side by side, in threads.

Trainings of small networks gain little from more threads each, and much from running beside each other. torch lets go of Python's lock
while it computes; each thread has its own number of threads for arithmetic, so that together they take what the machine has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

from contract.system import available_cores

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

_MOST_WORKERS = 4  # beyond it, Python's lock and the caches are in the way


class Cancelled(Exception):
    """Raised inside a training when another one failed, or the user gave up."""


def find_workers(device: str) -> int:
    """Return how many trainings run side by side by default: one on a GPU, otherwise as many as there are cores, up to 4."""
    return 1 if device != "cpu" else min(available_cores(), _MOST_WORKERS)


def run_all(
    jobs: Sequence[_Job], do: Callable[[_Job], _Result], done: Callable[[_Result], None], workers: int, stop: threading.Event
) -> None:
    """Run `do` on all jobs, `workers` at a time; `done` is told each result, in the caller's thread, as soon as it is there.

    After an error, or an interrupt, `stop` is set, jobs that have not begun are dropped, those that run are waited for (`do` is to end
    soon by raising Cancelled), what they still finish is told, and the first error is raised.
    """
    threads = max(1, available_cores() // workers)
    pool = ThreadPoolExecutor(workers, "training", initializer=torch.set_num_threads, initargs=(threads,))
    futures = [pool.submit(do, job) for job in jobs]
    told = set()
    try:
        for future in as_completed(futures):
            told.add(future)
            done(future.result())
    except BaseException:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        for future in futures:
            if future not in told and not future.cancelled() and future.exception() is None:
                done(future.result())
        raise
    pool.shutdown()
