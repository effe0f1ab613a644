"""Serves what is on disk as it changes: hears of changed files, and has what they make of the repository loaded."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from contract.errors import ExtraNeeded
from contract.repository.config import ALL_TASKS
from contract.repository.model import Repository
from serving.errors import LastModel, LoadFailed, NotReady, QueueFull, UnknownModel
from serving.process.threads import to_thread
from serving.router import Router

log = logging.getLogger(__name__)
_QUIET_MS = 100  # without a change, before those that there were are one
_MOST_MS = 1600  # that one waits for such a moment
_LOOK_S = 1.0  # whether the folder is another one by now
_END_S = 1.0  # in which the thread ends: the end of the server waits for it
_AGAIN_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)  # after which what failed is tried again, though nothing has changed


def check_watch() -> None:
    """Raise ExtraNeeded where nothing here can watch files."""
    if importlib.util.find_spec("watchfiles") is None:
        raise ExtraNeeded("Servers that load what changes on disk", "watchfiles", "watch")


class Watch:
    """Has `router`, which serves `served` from a folder, load what changes there, from `start` to `aclose`. Of one event loop.

    A change is a load of everything, with what a load promises: what cannot be read or served changes nothing, and is said in a line.
    """

    def __init__(self, router: Router, served: Repository) -> None:
        self._router = router
        self._seen: Repository | None = served  # None: what was seen last was not served
        self._changed = asyncio.Event()
        self._files = _Files(served.path)
        self._following: asyncio.Task[None] | None = None
        self._said = ""

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(self._changed.set)

        self._files.start(tell)
        self._following = asyncio.create_task(self._follow())

    async def aclose(self) -> None:
        """Load nothing from now on, and leave no thread. A load that has begun is the router's to end."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await to_thread(self._files.close)

    async def _follow(self) -> None:
        failed = 0
        while True:
            self._changed.clear()
            try:
                failed = 0 if await self._catch_up() else failed + 1
            except NotReady:
                return  # the server ends
            except Exception:
                log.exception("What changed on disk could not be loaded.")
                failed += 1
            wait_s = _AGAIN_S[min(failed, len(_AGAIN_S)) - 1] if failed else None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()

    async def _catch_up(self) -> bool:
        """Serve what is on disk; return False where that has to be tried again though nothing changes. Raises NotReady."""
        self._router.check_ready()
        try:
            disk = await self._router.lifecycle.on_disk()
        except LoadFailed as error:
            self._say(str(error))
            return False
        if disk == self._seen:
            return True
        self._seen = None
        try:
            await self._router.load(ALL_TASKS)
        except LoadFailed:  # which the log has
            await self._one_by_one(disk)
            return True  # until somebody writes there
        except QueueFull:
            return False
        self._seen, self._said = disk, ""
        return True

    async def _one_by_one(self, disk: Repository) -> None:
        """Load what can be: one task that cannot is not the others' fault."""
        served = self._router.repository.tasks
        changed = [name for name, task in disk.tasks.items() if task != served.get(name)]
        for name in changed if len(changed) > 1 else ():
            with suppress(LoadFailed, QueueFull, UnknownModel):
                await self._router.load(name)
        for name in served.keys() - disk.tasks.keys():
            with suppress(LastModel, UnknownModel):
                await self._router.unload(name)

    def _say(self, sentence: str) -> None:
        """Log `sentence`, once as long as it is the same."""
        if sentence != self._said:
            log.warning("%s The server goes on with what it has.", sentence)
            self._said = sentence


class _Files:
    """A thread that tells of changes below `path`, and of another folder in its place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, tell: Callable[[], None]) -> None:
        """Begin. tell: is called in the thread."""
        self._thread = threading.Thread(target=self._run, args=(tell,), name="espalier-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Return when the thread has ended, soon; one that waits for a folder that does not answer is left to itself."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_END_S)
            if self._thread.is_alive():
                log.warning("The folder of the repository does not answer; the thread that watches it is left behind.")

    def _run(self, tell: Callable[[], None]) -> None:
        """Watch the folder that is there, and then the next one: a thread's life."""
        polls: bool | None = None  # as the environment says
        while not self._stop.is_set():
            try:
                for _ in self._changes(polls):
                    tell()
            except (FileNotFoundError, NotADirectoryError):
                self._stop.wait(_LOOK_S)
            except Exception as error:  # of the system: no more watches, ...
                if not polls:
                    log.warning("Changes of files are not told here (%s); they are looked for instead.", error)
                polls = True
                self._stop.wait(_LOOK_S)
            tell()  # what changed while nothing was watched

    def _changes(self, polls: bool | None) -> Iterator[None]:
        """Yield when something has changed, as long as the folder is the same. Raises what the system does."""
        from watchfiles import watch

        begun = False
        with _held(self._path) as folder:
            for found in watch(
                self._path,
                watch_filter=None,
                debounce=_MOST_MS,
                step=_QUIET_MS,
                stop_event=self._stop,
                rust_timeout=round(1000 * _LOOK_S),
                yield_on_timeout=True,
                raise_interrupt=False,
                force_polling=polls,
                ignore_permission_denied=True,
            ):
                if found or not begun:  # also what changed before it began
                    yield
                begun = True
                if not os.path.samestat(os.fstat(folder), self._path.stat()):
                    return


@contextmanager
def _held(folder: Path) -> Iterator[int]:
    """Yield a descriptor of `folder`, so that no other one gets its inode number, should it be deleted. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
