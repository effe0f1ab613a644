"""Work in threads that hold up nobody's end: neither a server's, nor an event loop's, nor the process's.

A thread cannot be stopped from outside. Python waits at its end for the threads of its own pools, however long they still compute; it
does not wait for these.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import weakref
from collections.abc import Callable, Collection
from concurrent.futures import Executor, Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from contract.system import available_cores

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Jobs = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
_at_work: set[threading.Thread] = set()


class DaemonPool(Executor):
    """At most `threads` threads, begun when they are needed, that take jobs in the order in which they come. name: of its threads.

    They go when nobody has the pool any more.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._most = threads
        self._name = name
        self._jobs: _Jobs = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []  # guarded by `_lock`, as the next one
        self._is_closed = False
        weakref.finalize(self, _dismiss, self._jobs, threads)

    def submit(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Return the future of `function(*args, **kwargs)`. Raises RuntimeError when the pool is closed."""
        future: Future[_T] = Future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"The threads {self._name!r} take no more work.")
            self._jobs.put((future, partial(function, *args, **kwargs)))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
                name = f"{self._name}-{len(self._threads)}"
                self._threads.append(threading.Thread(target=_serve, args=(self._jobs, self._idle), name=name, daemon=True))
                self._threads[-1].start()
        return future

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = True) -> None:
        """Take no more jobs, drop those that have not begun, and let the threads go: those at work end with their work.

        wait, cancel_futures: as `Executor` has them. Nobody is waited for, and what has not begun is dropped, whatever they say.
        """
        with self._lock:
            self._is_closed = True
        try:
            while True:
                job = self._jobs.get_nowait()
                if job is not None and job[0].cancel():
                    job[0].set_running_or_notify_cancel()  # else `concurrent.futures.wait` would wait for it for ever
        except Empty:
            _dismiss(self._jobs, self._most)


def at_work() -> Collection[str]:
    """Return the names of the threads, of all pools of this process, that are at work."""
    return sorted(thread.name for thread in tuple(_at_work))


def _dismiss(jobs: _Jobs, threads: int) -> None:
    for _ in range(threads):
        jobs.put(None)


def _serve(jobs: _Jobs, idle: threading.Semaphore) -> None:
    """Carry out jobs: a thread's life."""
    while (job := jobs.get()) is not None:
        _carry_out(*job)
        del job  # else what it held would stay until there is another
        idle.release()


def _carry_out(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    me = threading.current_thread()
    _at_work.add(me)
    try:
        result = call()
    except BaseException as error:
        _at_work.discard(me)  # before anybody hears of it
        future.set_exception(error)
    else:
        _at_work.discard(me)
        future.set_result(result)


_aside = DaemonPool(available_cores() + 4, "aside")


async def to_thread(function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Do as `asyncio.to_thread`, in one of a few threads that the end of the loop does not wait for."""
    call = partial(contextvars.copy_context().run, function, *args, **kwargs)
    return await asyncio.wrap_future(_aside.submit(call))
