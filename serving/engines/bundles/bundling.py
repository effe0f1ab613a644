"""The bundles that are open: which a plan takes, which are opened in the background because it would, and how they change."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from typing import Any, NamedTuple

from contract.errors import EspalierError
from contract.plan import ExecutionPlan
from contract.repository.model import Repository
from serving.engines.bundles.partition import Partition
from serving.engines.scheduling.bundle_step import Bundle, asked_of, with_bundles
from serving.engines.sessions.runtime import SegmentFile
from serving.engines.sessions.store import SessionStore
from serving.errors import CannotBundle
from serving.process.threads import DaemonPool

log = logging.getLogger(__name__)
_WANTED = 2  # requests for which a bundle would have paid before it is opened
_MOST_PLANS = 256
MakeFile = Callable[[Bundle], SegmentFile]


class _Applied(NamedTuple):
    """What becomes of `plan`, by which bundles."""

    plan: ExecutionPlan
    bundled: ExecutionPlan
    bundles: tuple[str, ...]


class Bundling:
    """Puts together the steps of plans that bundles can run. make_file: of a bundle, for `store`. limit: the most rows of a segment's run.

    A bundle is opened by a thread of its own when requests have asked twice for enough of its segments, where memory allows it without
    closing others; it takes their place, so that their own sessions are closed then, and opened again when one is asked for alone. When
    tasks come or go, what is open serves on until its successor is, or cannot be. Then it is closed with the last request that was planned
    with it. Callable from several threads at once.
    """

    def __init__(self, store: SessionStore[Any], make_file: MakeFile, limit: Callable[[str], int]) -> None:
        self._store = store
        self._make_file = make_file
        self._limit = limit
        self._lock = threading.Lock()
        self._partition = Partition()
        self._targets: Mapping[str, Bundle] = {}
        self._open: dict[str, Bundle] = {}  # by segment
        self._held: dict[str, Bundle] = {}  # that may have a session: also what is being opened, or about to be closed
        # Of what is open, and of what was while requests that were planned with it are under way.
        self._limits: dict[str, int] = {}
        self._users: Counter[str] = Counter()  # requests that are under way
        self._retired: set[str] = set()  # to be closed with the last of these
        self._without_room: set[str] = set()  # not tried again until something has been closed, or has come
        self._wanted: Counter[str] = Counter()
        self._jobs: dict[str, Future[None]] = {}
        self._pool: DaemonPool | None = None
        self._closing = False
        self._plans: dict[tuple[int, int], _Applied] = {}

    def add(self, repository: Repository) -> None:
        """Know the segments of `repository`; a bundle that is open and has got more is replaced."""
        with self._lock:
            self._closing = False
            self._partition.add(repository)
            self._change()

    def remove(self, segments: Collection[str]) -> None:
        """Know no more of these, for which nobody will ask."""
        with self._lock:
            self._partition.remove(segments)
            self._change()

    def close(self) -> None:
        """Let go of all bundles, when what opens has ended. Nobody may ask meanwhile."""
        with self._lock:
            pool, self._pool, self._closing = self._pool, None, True
            jobs = list(self._jobs.values())
        if pool is not None:
            pool.shutdown()
        wait_for(jobs)
        with self._lock:
            self._store.close(self._limits)
            for known in (self._open, self._held, self._limits, self._wanted, self._jobs, self._plans):
                known.clear()
            self._users.clear()
            self._retired.clear()
            self._without_room.clear()
            self._partition = Partition()
            self._targets = {}

    def settle(self, seconds: float) -> None:
        """Return when nothing is being opened or closed, or so many seconds have passed."""
        with self._lock:
            jobs = list(self._jobs.values())
        wait_for(jobs, seconds)

    def __contains__(self, name: object) -> bool:
        """Whether `name` is a bundle's."""
        return name in self._limits

    def limit(self, group: object) -> int | None:
        """Return the most rows of a run of the bundle `group`; None: there is none."""
        return self._limits.get(group)  # type: ignore[call-overload,no-any-return]

    def loaded(self, loaded: Mapping[str, int]) -> Mapping[str, int]:
        """Return the bytes of open sessions by segment: those of a bundle are its segments', by their weights."""
        with self._lock:
            bundles, served = dict(self._held), self._targets.keys()
        found = Counter({name: size for name, size in loaded.items() if name not in bundles})
        for name in bundles.keys() & loaded.keys():
            members = [member for member in bundles[name].members if member.segment in served] or bundles[name].members
            weights = sum(member.bytes for member in members)
            for member in members:
                found[member.segment] += loaded[name] * member.bytes // weights if weights else loaded[name] // len(members)
        return dict(found)

    @contextmanager
    def applied(self, plan: ExecutionPlan, rows: int) -> Iterator[ExecutionPlan]:
        """Yield `plan` with the bundles that are open and save work for so many rows, itself where there are none.

        They stay open until the block ends, unless the memory is needed.
        """
        known = self._plans.get((id(plan), rows.bit_length()))
        if known is not None and known.plan is plan and not known.bundles:
            yield plan
            return
        with self._lock:
            known = self._known(plan, rows)
            self._users.update(known.bundles)
        try:
            yield known.bundled
        finally:
            with self._lock:
                self._users.subtract(known.bundles)
                for name in self._retired.intersection(known.bundles):
                    self._end_unused(name)
                self._users = +self._users  # without those that nobody uses

    def _known(self, plan: ExecutionPlan, rows: int) -> _Applied:
        """Return what becomes of `plan`, which is remembered unless another request for it makes a difference."""
        key = id(plan), rows.bit_length()
        known = self._plans.get(key)
        if known is None or known.plan is not plan or not all(map(self._store.is_open, known.bundles)):
            known, is_final = self._find(plan, rows)
            if is_final:
                if len(self._plans) >= _MOST_PLANS:
                    self._plans.clear()
                self._plans[key] = known
        return known

    def _find(self, plan: ExecutionPlan, rows: int) -> tuple[_Applied, bool]:
        """Return what becomes of `plan`, and whether it is the same for the next request, as long as no bundle opens or closes."""
        asked = asked_of(plan, self._open)
        bundles = {bundle.name: bundle for bundle in self._open.values()}
        used = [bundles[name] for name in asked if bundles[name].pays(asked[name], rows) and self._store.is_open(name)]
        served = {segment for bundle in used for segment in asked[bundle.name]}
        targets = {bundle.name: bundle for bundle in self._targets.values()}
        is_final = True
        for name, steps in asked_of(plan, self._targets).items():
            if not served.issuperset(steps) and targets[name].pays(steps, rows):
                is_final &= self._want(targets[name])
        return _Applied(plan, with_bundles(plan, used) if used else plan, tuple(bundle.name for bundle in used)), is_final

    def _want(self, bundle: Bundle) -> bool:
        """Note that a request wants `bundle`; return whether that was enough for it to be opened, or tried."""
        self._wanted[bundle.name] += 1
        if self._wanted[bundle.name] >= _WANTED:
            self._begin(bundle)
        return bundle.name in self._jobs or bundle.name in self._without_room

    def _change(self) -> None:
        """Follow the partition; what is open and has become another is replaced."""
        self._targets = self._partition.targets
        self._plans.clear()
        self._without_room.clear()
        opened = {self._targets[segment].name: self._targets[segment] for segment in self._open if segment in self._targets}
        known = {bundle.name for bundle in self._open.values()}
        for name in opened.keys() - known:
            self._begin(opened[name])
        gone = known - {bundle.name for segment, bundle in self._open.items() if segment in self._targets}
        for name in gone:
            self._retire(name)

    def _begin(self, bundle: Bundle) -> None:
        if bundle.name not in self._jobs and bundle.name not in self._without_room and not self._closing:
            self._jobs[bundle.name] = self._submit(self._make, bundle)

    def _submit(self, work: Callable[..., None], *arguments: object) -> Future[None]:
        self._pool = self._pool or DaemonPool(1, "bundles")
        return self._pool.submit(work, *arguments)

    def _make(self, bundle: Bundle) -> None:
        """Open `bundle` and let it take the place of what its segments run in, unless nobody needs it any more, or there is no memory."""
        try:
            if self._is_target(bundle):
                with self._lock:
                    self._held[bundle.name] = bundle
                self._store.open([self._make_file(bundle)], make_room=False)
        except KeyError:
            pass  # one of its segments has gone since
        except CannotBundle as error:
            log.info("%s", error)
            with self._lock:
                self._partition.exclude(error.segment)
                self._change()
        except EspalierError as error:
            log.info("Segments are run one by one that could run together: %s", error)
            with self._lock:
                self._retire_outdated(bundle)
            return  # it stays among the jobs, and is not tried again
        with self._lock:
            is_used = self._store.is_open(bundle.name) and self._is_target(bundle)
            if is_used:
                self._replace(bundle)
            elif self._is_target(bundle):
                self._without_room.add(bundle.name)
            self._wanted.pop(bundle.name, None)
            self._jobs.pop(bundle.name, None)
            self._plans.clear()
            self._retire_outdated(bundle)
        if is_used:
            self._store.close_idle(member.segment for member in bundle.members)
        else:
            self._drop(bundle.name)

    def _is_target(self, bundle: Bundle) -> bool:
        """Whether `bundle` is what its segments are to run in, still."""
        target = self._targets.get(bundle.members[0].segment)
        return target is not None and target.name == bundle.name and not self._closing

    def _replace(self, bundle: Bundle) -> None:
        """Let `bundle`, which is open, be what its segments run in."""
        segments = [member.segment for member in bundle.members]
        before = {self._open[segment].name for segment in segments if segment in self._open} - {bundle.name}
        self._limits[bundle.name] = min(map(self._limit, segments))
        self._open.update(dict.fromkeys(segments, bundle))
        self._retired.discard(bundle.name)
        for name in before:
            self._retire(name)

    def _retire_outdated(self, successor: Bundle) -> None:
        """Plan no more with what `successor` cannot follow, if that has segments that are gone: it would hold their weights for ever."""
        for name in {self._open[member.segment].name for member in successor.members if member.segment in self._open}:
            targets = {self._targets.get(segment) for segment, bundle in self._open.items() if bundle.name == name}
            others = {target.name for target in targets if target is not None} - {successor.name}
            if None in targets and not any(map(self._is_under_way, others)):
                self._retire(name)

    def _retire(self, name: str) -> None:
        """Plan with `name` no more, and close it when all that was planned with it is answered."""
        self._open = {segment: bundle for segment, bundle in self._open.items() if bundle.name != name}
        self._plans.clear()
        self._retired.add(name)
        self._end_unused(name)

    def _end_unused(self, name: str) -> None:
        if not self._users[name] and not self._closing and not self._is_under_way(name):  # `close` closes it
            self._retired.discard(name)
            self._jobs[name] = self._submit(self._end, name)

    def _is_under_way(self, name: str) -> bool:
        """Whether `name` is being opened or closed, or waits for that."""
        job = self._jobs.get(name)
        return job is not None and not job.done()

    def _end(self, name: str) -> None:
        self._drop(name)
        with self._lock:
            self._limits.pop(name, None)
            self._jobs.pop(name, None)
            self._without_room.clear()
            self._plans.clear()

    def _drop(self, name: str) -> None:
        self._store.close([name])
        with self._lock:
            self._held.pop(name, None)
