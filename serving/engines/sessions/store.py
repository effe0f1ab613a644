"""The sessions of the embedded engine: opened on first use or before, closed when memory is needed, never while they run."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from contract.dtypes import Array
from contract.errors import EspalierError, RepositoryError
from serving.engines.sessions.checked import CheckedSegments
from serving.engines.sessions.failures import Failures
from serving.engines.sessions.runtime import BundleFile, Runtime, SegmentFile, SessionT
from serving.errors import EngineError, SegmentClosed, SegmentTooLarge
from serving.process.memory import malloc_trim


@dataclass(eq=False)
class _Slot(Generic[SessionT]):
    """A session of a segment. threads: None for the store's own number. All else but `file` changes under the store's lock only."""

    file: SegmentFile
    threads: int | None = None
    session: SessionT | None = None
    bytes: int = 0  # reserved while it opens, then what it takes
    opening: bool = False
    runs: int = 0
    last_use: int = 0

    @property
    def name(self) -> str:
        return self.file.segment.name

    @property
    def is_busy(self) -> bool:
        return self.opening or self.runs > 0


_Key = str | tuple[str, int]  # name of the segment, and the threads where they are not the store's


class SessionStore(Generic[SessionT]):
    """Opens, runs and closes sessions by segment name; every method can be called from several threads at once.

    A session answers several runs at a time. Runs with fewer threads have sessions of their own, where there is memory for them
    without closing others. With a memory limit, sessions that do not run are closed, the one unused for
    longest first, to make room for one that is needed; if all run, the opening waits for one to end.
    memory_limit_bytes: as of SessionStoreOptions. checked: segments that need no check, and where those that were checked are noted;
    None: each is checked whenever it is opened.
    """

    def __init__(
        self, runtime: Runtime[SessionT], memory_limit_bytes: int | None = None, checked: CheckedSegments | None = None
    ) -> None:
        self._runtime = runtime
        self._checked = checked
        self._memory_limit_bytes = memory_limit_bytes
        self._slots: dict[_Key, _Slot[SessionT]] = {}
        self._failures = Failures()
        self._used_bytes = 0
        self._clock = 0
        self._changed = threading.Condition()

    def declare(self, files: Iterable[SegmentFile]) -> None:
        """Make segments known, to be opened on first use, and keep their files. One that is known already stays as it is.

        Raises RepositoryError when a file is not there.
        """
        files = [file for file in files if file.kept]
        with self._changed:
            for file in files:
                self._slots.setdefault(file.segment.name, _Slot(file))

    def open(self, files: Iterable[SegmentFile], *, make_room: bool = True, at_once: int | None = None) -> list[str]:
        """Make segments known and open them, each checked by a run with one row, unless that is known to be good: all or none.

        make_room False: rather than closing others for them, leave those that do not fit into memory for their first use.
        at_once: open so many, and of those beyond only what has to be checked; return the names of the others. None: all.
        Raises RepositoryError naming the segment that cannot be used.
        """
        files = list(files)
        with self._changed:
            new = [file for file in files if file.segment.name not in self._slots]
        self.declare(new)
        left: list[str] = []
        try:
            for number, file in enumerate(files):
                if at_once is not None and number >= at_once and self._is_known_good(file):
                    self._needed(file)  # one that can never be opened is refused now
                    left.append(file.segment.name)
                elif make_room or self._fits(file.segment.name):
                    self._release(self._acquire(file.segment.name))
        except BaseException:
            self.close(file.segment.name for file in new)
            raise
        if self._checked is not None:
            self._checked.save()
        return left

    def open_behind(self, names: Iterable[str]) -> None:
        """Open segments that are known and fit into memory, while others run; what fails is `unavailable`, as if a run had wanted it."""
        for name in names:
            with contextlib.suppress(EngineError, RepositoryError):  # closed meanwhile; noted
                if self._fits(name):
                    self._release(self._acquire_for_run(name))

    def run(self, name: str, inputs: Sequence[Array], threads: int | None = None) -> Sequence[Array]:
        """Run segment `name` on its inputs in order, each of shape (n, ...); return its outputs, each of shape (n, ...).

        Opens it if need be. threads: fewer than the store's, None: as many; no promise, since it needs a session of its own.
        Raises EngineError when it fails or is unknown, RepositoryError when it cannot be opened.
        """
        slot = None if threads is None else self._acquire_narrow(name, threads)
        return self._run(slot or self._acquire_for_run(name), inputs)

    def run_open(self, name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        """Do as `run` at once: raise SegmentClosed where it would open the segment."""
        with self._changed:
            slot = self._slots.get(name)
            if slot is None or slot.session is None:
                raise SegmentClosed(name)
            self._use(slot)
        return self._run(slot, inputs)

    def _run(self, slot: _Slot[SessionT], inputs: Sequence[Array]) -> Sequence[Array]:
        """Run `slot`, which has been acquired, and release it."""
        try:
            assert slot.session is not None
            return self._runtime.run(slot.file.segment, slot.session, inputs)
        except EspalierError:
            raise
        except Exception as error:  # a runtime's own, which may hold paths
            raise EngineError(f"Segment {slot.name!r} failed on {len(inputs[0])} rows.") from error
        finally:
            self._release(slot)

    def close(self, names: Iterable[str]) -> None:
        """Forget segments: no run of theirs begins any more; return when those that run have ended. Unknown names are passed over."""
        closed: list[SessionT | None] = []
        with self._changed:
            gone = set(names)
            slots = [self._slots.pop(key) for key, slot in list(self._slots.items()) if slot.name in gone]
            self._failures.forget(gone)
            while slots:  # those that are idle at once: one that is being opened may wait for their memory
                closed += [self._evict(slot) for slot in slots if not slot.is_busy]
                slots = [slot for slot in slots if slot.is_busy]
                if slots:
                    self._changed.wait()
        _let_go(closed)

    def close_idle(self, names: Iterable[str]) -> None:
        """Close the sessions of these segments that do not run now; the segments stay known, and are opened on their next use."""
        closed: list[SessionT | None] = []
        with self._changed:
            for name in names:
                slot = self._slots.get(name)
                if slot is not None and slot.session is not None and not slot.is_busy:
                    closed.append(self._evict(slot))
        _let_go(closed)

    def close_all(self) -> None:
        """Close every segment, as `close` does."""
        with self._changed:
            names = {slot.name for slot in self._slots.values()}
        self.close(names)

    def loaded(self) -> Mapping[str, int]:
        """Return the memory that each open segment takes, bytes by name, counted as SessionStoreOptions says."""
        found: Counter[str] = Counter()
        with self._changed:
            for slot in self._slots.values():
                if slot.session is not None:
                    found[slot.name] += slot.bytes
        return dict(found)

    def unavailable(self) -> Collection[str]:
        """Return the segments that could not be opened when they were last wanted."""
        return self._failures.segments

    def is_open(self, name: str) -> bool:
        """Return whether `name` has a session at this moment, which a run would not have to wait for."""
        slot = self._slots.get(name)
        return slot is not None and slot.session is not None

    def _acquire_for_run(self, name: str) -> _Slot[SessionT]:
        """Do as `_acquire`, and note how it went."""
        self._failures.check(name)
        try:
            slot = self._acquire(name)
        except RepositoryError as error:
            self._failures.failed(name, error)
            raise
        self._failures.succeeded(name)
        return slot

    def _acquire_narrow(self, name: str, threads: int) -> _Slot[SessionT] | None:
        """Return the slot for runs of `name` with so many threads, as `_acquire` does; None: the store's own session has to do.

        That is where the segment is small and has one thread anyway, while another opens this one, or where there is no memory.
        """
        with contextlib.suppress(EngineError, RepositoryError):  # the store's own does, or says what is wrong
            return self._acquire((name, threads)) if self._may_be_narrow(name, threads) else None
        return None

    def _may_be_narrow(self, name: str, threads: int) -> bool:
        with self._changed:
            own = self._slots.get(name)
            if own is None or own.session is None or self._runtime.has_one_thread(own.file.segment):
                return False
            slot = self._slots.setdefault((name, threads), _Slot(own.file, threads))
            return not slot.opening and self._fits((name, threads))

    def _acquire(self, key: _Key) -> _Slot[SessionT]:
        """Return the slot of `key` with an open session and one more run; whoever comes first opens it, the others wait."""
        with self._changed:
            slot = self._slots.get(key)
            while slot is not None and slot.opening:
                self._changed.wait()
                slot = self._slots.get(key)
            if slot is None:
                name = key if isinstance(key, str) else key[0]
                raise EngineError(f"Segment {name!r} is not loaded.")
            if slot.session is not None:
                self._use(slot)
                return slot
            slot.opening = True
        try:
            self._reserve(slot)
            session = self._open(slot.file, slot.threads)
        except BaseException:
            with self._changed:
                slot.opening = False
                self._evict(slot)
            raise
        with self._changed:
            slot.session, slot.opening = session, False
            self._use(slot)
            self._changed.notify_all()
        return slot

    def _open(self, file: SegmentFile, threads: int | None) -> SessionT:
        if threads is not None:
            return self._runtime.open(file, threads)
        if self._is_known_good(file):
            with contextlib.suppress(RepositoryError):  # a runtime may do it another way when it loads, or says what is wrong
                return self._runtime.open(file)
        if self._checked is None or isinstance(file, BundleFile):
            return self._runtime.load(file)
        before = self._checked.key(file)
        session = self._runtime.load(file)
        self._checked.add(file, before)
        return session

    def _is_known_good(self, file: SegmentFile) -> bool:
        return self._checked is not None and not isinstance(file, BundleFile) and self._checked.knows(file)

    def _use(self, slot: _Slot[SessionT]) -> None:
        self._clock += 1
        slot.last_use = self._clock
        slot.runs += 1

    def _release(self, slot: _Slot[SessionT]) -> None:
        with self._changed:
            slot.runs -= 1
            self._changed.notify_all()

    def _reserve(self, slot: _Slot[SessionT]) -> None:
        """Count the memory of `slot`, after closing what must be closed for it. Raises SegmentTooLarge."""
        size = self._needed(slot.file)
        limit = self._memory_limit_bytes
        closed: list[SessionT | None] = []
        with self._changed:
            while limit is not None and self._used_bytes + size > limit:
                idle = [other for other in self._slots.values() if other.session is not None and not other.is_busy]
                if idle:
                    closed.append(self._evict(min(idle, key=lambda other: other.last_use)))
                else:
                    self._changed.wait()
            slot.bytes = size
            self._used_bytes += size
        _let_go(closed)

    def _evict(self, slot: _Slot[SessionT]) -> SessionT | None:
        session, slot.session = slot.session, None
        self._used_bytes -= slot.bytes
        slot.bytes = 0
        self._changed.notify_all()
        return session

    def _fits(self, key: _Key) -> bool:
        limit = self._memory_limit_bytes
        with self._changed:
            slot = self._slots.get(key)
            size = 0 if slot is None or slot.session is not None else self._needed(slot.file)
            return limit is None or self._used_bytes + size <= limit

    def _needed(self, file: SegmentFile) -> int:
        """Return the memory to reserve for a session. Raises SegmentTooLarge when there can never be so much."""
        size = self._runtime.memory_of(file)
        limit = self._memory_limit_bytes
        if limit is not None and size > limit:
            raise SegmentTooLarge(file.segment.name, size, limit)
        return size


def _let_go(sessions: list[SessionT | None]) -> None:
    """Drop the last references to closed sessions; it takes milliseconds, and is for outside the lock."""
    if sessions:
        sessions.clear()
        malloc_trim()
