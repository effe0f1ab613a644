"""The embedded engine: ONNX Runtime or OpenVINO in this process, one session per segment."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from contract.dtypes import Array
from contract.plan import ExecutionPlan
from contract.repository.model import Repository, Segment
from contract.system import available_cores, have_cores, waited_for_cores_s
from contract.volume import is_free
from serving.engines.base import Answer, Call, SegmentStatistics
from serving.engines.bundles.bundling import Bundling
from serving.engines.free_rows import FreeRows
from serving.engines.onnxruntime.runtime import OnnxRuntime
from serving.engines.onnxruntime.segment_cache import processor
from serving.engines.onnxruntime.session import PROVIDERS as PROVIDERS
from serving.engines.onnxruntime.session import session_options as session_options
from serving.engines.runtimes import make_runtime
from serving.engines.scheduling.batch_size_profile import BatchSizeProfile
from serving.engines.scheduling.batches import RunSegment
from serving.engines.scheduling.bundle_step import Bundle
from serving.engines.scheduling.plan_execution import Group
from serving.engines.scheduling.scheduler import MAX_QUEUE_ROWS, Scheduler
from serving.engines.scheduling.thread_allocation import ThreadAllocation, halving
from serving.engines.sessions.checked import CheckedSegments
from serving.engines.sessions.checks import zeros_for
from serving.engines.sessions.runtime import BundleFile, SegmentFile, SessionStoreOptions
from serving.engines.sessions.store import SessionStore
from serving.engines.statistics import RunStatistics
from serving.process.threads import to_thread

_AT_ONCE = 100  # segments that a start opens in any case; more that have run here before may wait


@dataclass(frozen=True)
class EngineOptions:
    """How the embedded engine computes.

    sessions: how segments are opened; its `threads` are those of a run, None: the cores of this process, divided by `instances`.
    instances: runs at a time, each with `threads`; None: what is best at the moment (thread_allocation.py) where segments compute on the
    CPU and have a cache, whose weights their sessions share (ONNX Runtime's do), else one. max_queue_rows: rows that may wait, of which
    each tenant has its share. max_batch_rows: the most rows of a run, None: as many as the segment takes; a segment whose rows may
    affect each other gets those of one request, whatever this is. learn_rows: whether `start` finds out which batch size is best for
    each segment (a tenth of a second for each shape that is not known; on the CPU only); rows_file: where that is kept, None: nowhere.
    checked_file: keeps which segments have run here, so that a later process need not run them for a check, and beside it how OpenVINO's
    are best run; None: nowhere.
    max_batch_elements: the most elements of a run of a segment whose sizes are free, in what it takes and gives together; None: as many as
    that best number of rows has at the reference sizes. A row that has more runs alone.
    bundles: whether small segments that are asked for together run as one session (bundles/bundling.py); on the CPU only.
    """

    sessions: SessionStoreOptions = field(default_factory=SessionStoreOptions)
    instances: int | None = None
    max_queue_rows: int = MAX_QUEUE_ROWS
    max_batch_rows: int | None = None
    learn_rows: bool = False
    rows_file: Path | None = None
    max_batch_elements: int | None = None
    checked_file: Path | None = None
    bundles: bool = True

    def __post_init__(self) -> None:
        for name in ("instances", "max_batch_rows", "max_batch_elements"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}.")

    @property
    def threads(self) -> int:
        """Return the threads of a run, at most."""
        threads = self.sessions.threads
        return max(1, available_cores() // (self.instances or 1)) if threads is None else threads


class EmbeddedEngine:
    """Runs the segments of `repository`. threads: a short way to say `options.sessions.threads`."""

    batches_elsewhere: ClassVar[bool] = False

    def __init__(self, repository: Repository, *, threads: int | None = None, options: EngineOptions | None = None) -> None:
        options = options or EngineOptions(SessionStoreOptions(threads))
        self._repository = repository
        self._options = options
        self._segments: Mapping[str, Segment] = {}
        self._files: Mapping[str, SegmentFile] = {}
        spin = options.sessions.spin and have_cores(options.threads * (options.instances or 1))
        ways_file = None if options.checked_file is None else options.checked_file.with_name("openvino.jsonl")
        sessions = replace(options.sessions, threads=options.threads, spin=spin, ways_file=ways_file)
        self._runtime = make_runtime(sessions, options.instances or 1)
        # On a GPU the first run of a size takes long, and had better be the check.
        facts = (self._runtime.name, options.sessions.provider, processor())
        computed_by = self._runtime.computed_by
        checked = CheckedSegments(options.checked_file, facts, computed_by=computed_by) if self._runtime.on_cpu else None
        self._store = SessionStore(self._runtime, options.sessions.memory_limit_bytes, checked)
        self._behind: asyncio.Task[None] | None = None  # opens what `start` has left
        self._batch_sizes = BatchSizeProfile(
            options.rows_file if self._has_profile else None,
            options.threads,
            # With more threads than cores they wait for each other, which says nothing of others.
            waited=waited_for_cores_s if have_cores(options.threads) else lambda: 0.0,
            runtime=self._runtime.name,
        )
        self._limits: Mapping[Group, int] = {}
        self._free_rows: Mapping[str, FreeRows] = {}  # of a run
        self._free_rows_at_once: Mapping[str, FreeRows] = {}  # of a request
        self._statistics = RunStatistics(repository.segments)
        self._bundling = Bundling(self._store, self._bundle_file, self._limit) if self._has_bundles else None
        self._scheduler = Scheduler(
            self._run,
            self._limit,
            allocation=self._allocation,
            run_on=self._run_on,
            max_queue_rows=options.max_queue_rows,
            on_run=self._statistics.add,
            on_together=self._statistics.add_together,
            is_open=self._store.is_open,
            run_open=self._store.run_open,  # of a bundle, too
            at_once=self._limit_at_once,
        )

    @property
    def rounding(self) -> float:
        """Return by how much an answer may differ from that in fp32, in units of its spread."""
        return self._runtime.rounding

    async def start(self) -> None:
        """Open every segment that fits into the memory, those of most tasks first, and run it once, unless it has run here before.

        Of many, those that have are opened behind the start, while requests are answered, unless one asks for them first.
        Raises RepositoryError naming the segment that cannot be used.
        """
        left = await to_thread(self._open, self._repository, make_room=False)
        if self._options.learn_rows and self._has_profile:
            await to_thread(self._learn_rows, left)
        self._scheduler.start()
        self._behind = asyncio.create_task(to_thread(self._store.open_behind, left)) if left else None

    async def aclose(self) -> None:
        """Finish what was asked for, then let go of the sessions."""
        await self._scheduler.aclose()
        self._segments = {}
        if self._bundling is not None:
            await to_thread(self._bundling.close)
        await to_thread(self._store.close_all)
        if self._behind is not None:
            await self._behind  # nothing that it would open is known any more

    async def load(self, repository: Repository) -> None:
        """Open the segments of `repository` that are not known, and run each once.

        Raises RepositoryError naming one that cannot be used.
        """
        await to_thread(self._open, repository, make_room=True)

    async def release(self, segments: Collection[str]) -> None:
        """Let go of the sessions of these segments, and of what they have done."""
        self._segments = {name: segment for name, segment in self._segments.items() if name not in segments}
        self._files = {name: file for name, file in self._files.items() if name not in segments}
        if self._bundling is not None:
            self._bundling.remove(segments)
        await to_thread(self._store.close, segments)
        self._statistics.drop(segments)
        self._scheduler.forget(segments)

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call = Call()) -> Answer:  # noqa: B008 (frozen)
        """Run `plan` on `inputs`, each of shape (n, ...). A segment that fails is named in the answer's errors."""
        if self._bundling is None or len(plan.steps) < 2:
            return await self._scheduler.infer(plan, inputs, call)
        with self._bundling.applied(plan, len(next(iter(inputs.values())))) as bundled:
            return await self._scheduler.infer(bundled, inputs, call)

    def try_segment(self, segment: Segment, inputs: Sequence[Array]) -> Sequence[Array]:
        """Return what `segment` gives on `inputs`; not counted. Raises EngineError, RepositoryError."""
        return [np.asarray(result) for result in self._store.run(segment.name, inputs)]

    def check_room(self, rows: int, call: Call) -> None:
        """Raise QueueFull when so many rows more may not wait now."""
        self._scheduler.check_room(rows, call)

    def queued_rows(self) -> Mapping[str, int]:
        """Return the rows that wait, by tenant."""
        return self._scheduler.queued_rows()

    def statistics(self) -> Mapping[str, SegmentStatistics]:
        """Return what each segment has done for requests since it was loaded."""
        return self._statistics.totals()

    async def refresh(self) -> None:
        """Do nothing: what ran here is counted when it has run."""

    async def settled(self, seconds: float) -> None:
        """Return when nothing is opened in the background, or so many seconds have passed: for those who measure."""
        if self._bundling is not None:
            await to_thread(self._bundling.settle, seconds)

    def loaded(self) -> Mapping[str, int]:
        """Return the bytes of each segment that is open."""
        loaded = self._store.loaded()
        return loaded if self._bundling is None else self._bundling.loaded(loaded)

    def computed_by(self) -> Mapping[str, int]:
        """Return how many of the open segments each runtime computes, and in which precision where there is a choice."""
        known = self._segments
        return Counter(self._runtime.computed_by(known[name]) for name in self.loaded() if name in known)

    def unavailable(self) -> Collection[str]:
        """Return the segments that were closed for others and cannot be opened again."""
        return self._store.unavailable()

    @property
    def _allocation(self) -> ThreadAllocation:
        """Return what runs at a time: as many as were asked for, or else what the threads of this machine allow."""
        if self._options.instances is not None:
            return ThreadAllocation(self._options.instances)
        return halving(self._options.threads) if self._runtime.shares_weights else ThreadAllocation(1)

    def _run_on(self, shares: int) -> RunSegment:
        """Return what runs segments on so many shares: all threads if they are all that a run may take, else one for each."""
        return self._run if shares == self._allocation.widths[0] else partial(self._run, threads=shares)

    def _run(self, name: str, inputs: Sequence[Array], threads: int | None = None) -> Sequence[Array]:
        """Run a segment, which is opened if need be, or a bundle, which is not."""
        if self._bundling is not None and name in self._bundling:
            return self._store.run_open(name, inputs)
        return self._store.run(name, inputs, threads)

    def _bundle_file(self, bundle: Bundle) -> BundleFile:
        members = [self._segments[member.segment] for member in bundle.members]
        outputs = tuple(spec for member in members for spec in member.outputs)
        macs, weights = sum(member.macs for member in members), sum(member.weight_bytes for member in members)
        as_one = replace(members[0], name=bundle.name, outputs=outputs, digest="", macs=macs, weight_bytes=weights)
        return BundleFile(as_one, Path(), tuple(self._files[member.name] for member in members))

    @property
    def _has_bundles(self) -> bool:
        return self._options.bundles and self._runtime.on_cpu and isinstance(self._runtime, OnnxRuntime)

    @property
    def _has_profile(self) -> bool:
        """Whether rows are profiled: elsewhere more are better, and the first run of a size takes longer than the profile may."""
        return self._runtime.on_cpu

    def _open(self, repository: Repository, make_room: bool) -> list[str]:
        """Return the segments that are left to be opened behind the start: none where there is to be room for all."""
        uses = Counter(step.segment for task in repository.tasks.values() for step in task.steps)
        new = [segment for name, segment in repository.segments.items() if name not in self._segments]
        new.sort(key=lambda segment: -uses[segment.name])
        files = {segment.name: SegmentFile(segment, repository.model_file(segment.name)) for segment in new}
        self._runtime.prepare(repository, [*files.values()])
        left = self._store.open(files.values(), make_room=make_room, at_once=None if make_room else _AT_ONCE)
        self._segments = {**self._segments, **{segment.name: segment for segment in new}}
        self._files = {**self._files, **files}
        self._set_limits()
        if self._bundling is not None:
            self._bundling.add(repository)
        return left

    def _set_limits(self) -> None:
        most = self._options.max_batch_rows or sys.maxsize
        # A request for what espalier did not export is one run: nobody knows that its rows may be told apart.
        limits = self._batch_sizes.limit
        self._limits = {
            name: segment.max_batch_rows if segment.plain else min(most, limits(segment))
            for name, segment in self._segments.items()
        }
        elements = self._options.max_batch_elements
        free = {name: segment for name, segment in self._segments.items() if is_free(segment.inputs) and segment.plain is None}
        self._free_rows = {
            name: FreeRows(segment, self._limits[name], min(most, segment.max_batch_rows), elements)
            for name, segment in free.items()
        }
        self._free_rows_at_once = {
            name: FreeRows(segment, segment.max_batch_rows, segment.max_batch_rows, elements) for name, segment in free.items()
        }

    def _limit(self, group: Group) -> int:
        known = self._limits.get(group)
        if known is None and self._bundling is not None:
            known = self._bundling.limit(group)
        if known is not None:
            return known
        name, shapes = (group, ()) if isinstance(group, str) else group
        free = self._free_rows.get(name)
        return self._limits.get(name, 1) if free is None else free.limit(shapes)  # of one that is gone, any: its run fails

    def _limit_at_once(self, group: Group) -> int:
        name, shapes = (group, ()) if isinstance(group, str) else group
        free = self._free_rows_at_once.get(name)
        return self._limit(group) if free is None else free.limit(shapes)

    def _learn_rows(self, left: Sequence[str]) -> None:
        for segment in (self._segments[name] for name in (*self._store.loaded(), *left)):
            if segment.plain is not None:
                continue  # what it can be tried with nobody knows
            self._batch_sizes.learn(segment, partial(self._try, segment))
        self._batch_sizes.save()
        self._set_limits()

    def _try(self, segment: Segment, rows: int) -> None:
        self._store.run(segment.name, zeros_for(segment, rows))
