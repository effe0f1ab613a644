"""Which tasks are served, and how that changes while requests run.

What is served at a moment is a catalogue that never changes. A load or unload makes the next one: its new segments are opened and tried
first, what is not known of their rows is found out, and its new tasks must answer their recorded samples; then it takes the place of the
old one at once. Requests finish on the catalogue that they started on; segments that only old catalogues know are closed when their last
request is done. Segments are named by content, so that states mix without harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from contract.errors import EspalierError, RepositoryError
from contract.repository.config import ALL_TASKS
from contract.repository.model import DIGEST_VERSION, Repository, Task
from contract.repository.read import RepositoryReader
from serving.catalog import Catalog
from serving.coupling import RowsCheck
from serving.engines.base import Engine
from serving.errors import EngineError, LastModel, LoadFailed, NotATask, UnknownModel
from serving.padding_check import PaddingCheck
from serving.parity import check_answers
from serving.process.threads import to_thread
from serving.text.tokenizers import Tokenizers

log = logging.getLogger(__name__)


def served_part(repository: Repository) -> Repository:
    """Return `repository` with the segments that requests can come to: those of the tasks and their canaries."""
    served = [task for kept in repository.tasks.values() for task in (kept, *([kept.canary.task] if kept.canary else []))]
    needed = {step.segment for task in served for step in task.steps}
    return replace(repository, segments={name: repository.segments[name] for name in repository.segments if name in needed})


class _Generation:
    """A catalogue and how many requests are on it."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.users = 0


class Lifecycle:
    """The catalogue of `repository` on `engine`, and its changes from the repository's folder. Used from one event loop.

    reader: who has read `repository` and remembers; None: nobody, so that the first change takes as long as reading all anew.
    rows_record: as of `RowsCheck`. pad_lengths: as of `PaddingCheck`.
    """

    def __init__(
        self,
        repository: Repository,
        engine: Engine,
        reader: RepositoryReader | None = None,
        rows_record: Path | None = None,
        pad_lengths: Sequence[int] = (),
    ) -> None:
        self._engine = engine
        self._path = repository.path
        self._reader = reader or RepositoryReader(repository.path)
        self._rows = RowsCheck(engine, rows_record)
        self._padding = PaddingCheck(engine, pad_lengths)
        self.tokenizers = Tokenizers()
        self._current = _Generation(Catalog(repository))
        _say_what_is_new(repository, {}, {})
        _say_if_newer(repository, DIGEST_VERSION)
        self._old: list[_Generation] = []
        self._changing = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()
        self._releasing = False  # a task waits to do it

    @property
    def catalog(self) -> Catalog:
        """Return what is served now."""
        return self._current.catalog

    async def begin(self) -> None:
        """Find out what is to be known of the first catalogue's segments, which are loaded, before anybody asks for them."""
        await self.tokenizers.open(self.catalog.repository)
        judged = await self._rows.judged(self.catalog.repository)
        self._current = _Generation(Catalog(judged, padded=await self._padding.tried(judged)))

    @contextmanager
    def use(self) -> Iterator[Catalog]:
        """Yield the catalogue of this moment; what it needs stays open until the block ends."""
        generation = self._current
        generation.users += 1
        try:
            yield generation.catalog
        finally:
            generation.users -= 1
            self._release_soon()

    async def on_disk(self) -> Repository:
        """Return what a load of everything would serve now. Raises LoadFailed."""
        async with self._changing:
            return served_part(await self._read(ALL_TASKS))

    async def load(self, name: str) -> None:
        """Serve the task `name` as it is on disk now, or, for all_tasks, exactly the tasks that are there.

        Raises UnknownModel, NotATask, LoadFailed, and QueueFull when the queue stays full; then nothing has changed.
        """
        async with self._changing:
            disk = await self._read(name)
            before = self.catalog.repository
            unserved = {other: reason for other, reason in before.unserved.items() if other != name}
            if name == ALL_TASKS:
                tasks, unserved = disk.tasks, {**disk.unserved}
            elif name in disk.tasks:
                tasks = {**before.tasks, name: disk.tasks[name]}
            elif name in disk.unserved:
                raise LoadFailed(name, RepositoryError(disk.unserved[name]))
            elif name in disk.segments:
                raise NotATask(name)
            else:
                raise UnknownModel(name, disk.tasks)
            await self._serve(
                name, replace(before, tasks=tasks, segments={**before.segments, **disk.segments}, unserved=unserved)
            )

    async def unload(self, name: str) -> None:
        """Serve the task `name` no longer. Raises UnknownModel, NotATask, LastModel; then nothing has changed."""
        async with self._changing:
            repository = self.catalog.repository
            if name in repository.segments or name == ALL_TASKS:
                raise NotATask(name)
            if name not in repository.tasks:
                raise UnknownModel(name, repository.tasks)
            rest = {known: task for known, task in repository.tasks.items() if known != name}
            if not rest:
                raise LastModel(name)
            await self._serve(name, replace(repository, tasks=rest))

    async def finish(self, change: Coroutine[Any, Any, None]) -> None:
        """Await `change`, which goes on to its end also when nobody waits any more: what it has half opened would belong to nobody."""
        await asyncio.shield(self._start(change))

    async def settle(self) -> None:
        """Wait until changes are over and what has been let go of is closed."""
        while self._running:
            await asyncio.wait(self._running)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _read(self, name: str) -> Repository:
        try:
            return await to_thread(self._reader.read)
        except RepositoryError as error:
            # Clients read it, and are not to know where on this machine the repository is.
            raise LoadFailed(name, RepositoryError(str(error).replace(str(self._path), "The repository"))) from error
        except OSError as error:
            raise LoadFailed(name, RepositoryError(f"The repository cannot be read ({error.strerror}).")) from error

    async def _serve(self, name: str, wanted: Repository) -> None:
        repository = served_part(wanted)
        before = self.catalog.repository
        changed = [task for task in repository.tasks.values() if task.name == name or task != before.tasks.get(task.name)]
        try:
            await self.tokenizers.open(repository)
            await self._engine.load(repository)
            catalog = await self._tried(repository, changed)
        except (RepositoryError, EngineError) as error:
            raise LoadFailed(name, error) from error
        self._old.append(self._current)
        self._current = _Generation(catalog)
        _say_what_is_new(repository, before.tasks, before.unserved)
        _say_if_newer(repository, max(before.newest_digest_version, DIGEST_VERSION))
        self._release_soon()

    async def _tried(self, repository: Repository, tasks: Iterable[Task]) -> Catalog:
        """Return `repository` with what is to be known of its segments and tasks, after `tasks` have answered as their records say.

        What was opened for a task that fails is closed.
        """
        try:
            judged = await self._rows.judged(repository)
            await check_answers(self._engine, judged, tasks)
            return Catalog(judged, padded=await self._padding.tried(judged))
        except EspalierError:
            with suppress(EspalierError):  # of an engine that is told what tasks are, these too are as they were
                await self._engine.load(self.catalog.repository)
            await self._engine.release(repository.segments.keys() - self._kept())
            raise

    def _kept(self) -> set[str]:
        """Return the segments that requests can ask for."""
        return {name for generation in (self._current, *self._old) for name in generation.catalog.repository.segments}

    def _release_soon(self) -> None:
        """Let go of the segments that nobody can ask for any more."""
        if not self._releasing and any(not generation.users for generation in self._old):
            self._releasing = True
            self._start(self._release())

    async def _release(self) -> None:
        async with self._changing:  # what is let go of here may be what a load has just asked for again
            self._releasing = False  # what ends from now on is the next one's
            finished = [generation for generation in self._old if not generation.users]
            self._old = [generation for generation in self._old if generation.users]
            gone = {name for generation in finished for name in generation.catalog.repository.segments} - self._kept()
            self.tokenizers.keep_only(*(generation.catalog.repository for generation in (self._current, *self._old)))
            if gone:
                await self._engine.release(gone)


def _say_what_is_new(repository: Repository, tasks: Mapping[str, Task], unserved: Mapping[str, str]) -> None:
    """Log what is not served, and what is served otherwise than its config.pbtxt says, unless it was so before: `tasks`, `unserved`."""
    for name, reason in repository.unserved.items():
        if unserved.get(name) != reason:
            log.warning("Model %r is not served: %s", name, reason)
    for name, task in repository.tasks.items():
        if task.plain is not None and task.plain.unheeded and task != tasks.get(name):
            log.info("Model %r is served, but not what its config.pbtxt says of %s.", name, ", ".join(task.plain.unheeded))


def _say_if_newer(repository: Repository, known: int) -> None:
    """Log that a newer version wrote part of what is served, unless that is `known`; nothing here computes digests."""
    if repository.newest_digest_version > known:
        log.warning(
            "The repository was written by a newer version of espalier (its digests are of version %d, the newest known here is %d); it is "
            "served as it says, but upgrade espalier before you change it.",
            repository.newest_digest_version,
            DIGEST_VERSION,
        )
