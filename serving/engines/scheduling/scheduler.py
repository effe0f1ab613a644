"""Runs plans on a function that runs one segment, in worker threads: requests that wait are batched per segment, whoever asked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from contract.dtypes import Array
from contract.plan import ExecutionPlan
from serving.engines.base import Answer, Call
from serving.engines.scheduling.admission import Admission, Place
from serving.engines.scheduling.batches import BatchRunner, OnRun, Outcome, RunSegment, SegmentTimes, advance
from serving.engines.scheduling.fair_queue import FairQueue
from serving.engines.scheduling.inline import ShortRuns
from serving.engines.scheduling.plan_execution import Flow, Work
from serving.engines.scheduling.row_chunks import join, split
from serving.engines.scheduling.thread_allocation import Lanes
from serving.errors import DeadlineExceeded, NotReady, SegmentClosed
from serving.process.threads import to_thread

MAX_QUEUE_ROWS = 1024
_BRIEF_S = 0.001  # some times what it costs to hand work to a thread, and to hold Python's lock meanwhile


class Scheduler:
    """Answers plans. run_segment(name, arrays of shape (n, ...)) -> arrays of shape (n, ...); raises ServingError.

    limit: the most rows that a segment takes in one run. workers: runs at a time; or lanes: what there is for runs, of which each takes
    one or more, and run_on: what runs a segment on so many of them (None: run_segment on any number). max_queue_rows: rows of requests
    that have not begun, of which each tenant has its share (admission.py); a request in parts counts as one of them. on_run: is told every
    run, and the seconds that each request in it waited for it, in the thread of the run. is_open: whether a segment can run without being
    opened first. run_open: as run_segment, but raises SegmentClosed rather than open one; None: run_segment never opens any.
    There is no artificial delay: where lanes are free, what is there begins.
    """

    def __init__(
        self,
        run_segment: RunSegment,
        limit: Callable[[str], int],
        *,
        workers: int = 1,
        lanes: Lanes | None = None,
        run_on: Callable[[int], RunSegment] | None = None,
        max_queue_rows: int = MAX_QUEUE_ROWS,
        on_run: OnRun | None = None,
        is_open: Callable[[str], bool] = lambda segment: True,
        run_open: RunSegment | None = None,
    ) -> None:
        self._lanes = lanes or Lanes(workers)
        on_run = on_run or (lambda run, waits: None)
        runs = {width: run_on(width) if run_on else run_segment for width in self._lanes.widths}
        self._runners = {width: BatchRunner(run, limit, on_run) for width, run in runs.items()}
        self._times = SegmentTimes()
        self._short = ShortRuns(BatchRunner(run_open or run_segment, limit, on_run), self._times, limit, is_open)
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        # What follows is guarded by `_changed`.
        self._queue = FairQueue(limit, self._times)
        self._open: dict[Flow, _Open] = {}
        self._admission = Admission(max_queue_rows)
        self._free = self._lanes.capacity
        self._stopping = False

    def queued_rows(self) -> Mapping[str, int]:
        """Return the rows of requests that have not begun, by tenant."""
        return self._admission.rows()

    def check_room(self, rows: int, call: Call) -> None:
        """Raise QueueFull when so many rows more may not wait now."""
        self._admission.check(call.tenant, call.at_once(rows))

    def forget(self, segments: Iterable[str]) -> None:
        """Know no more how long these take; nobody will ask for them."""
        self._times.forget(segments)

    def start(self) -> None:
        """Start the workers. To be called in the event loop that most requests come from: short ones are answered there."""
        self._short.start()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"segments-{i}", daemon=True) for i in range(self._lanes.capacity)
        ]
        for thread in self._threads:
            thread.start()

    async def aclose(self) -> None:
        """Finish what has been asked for, then stop the workers."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        threads, self._threads = self._threads, []
        for thread in threads:
            await to_thread(thread.join)

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call) -> Answer:
        """Return what `plan` gives on `inputs`, run in parts of `call.rows_per_run` rows.

        Raises QueueFull, DeadlineExceeded, NotReady, TooManyRows. Segments that fail are in the answer's `errors`. Cancelling it takes
        back what has not begun.
        """
        if call.deadline is not None and call.deadline <= time.monotonic():
            raise DeadlineExceeded
        flows = [Flow(plan, part, call, next(self._numbers)) for part in split(plan, inputs, call.rows_per_run)]
        if self._is_idle and len(flows) == 1:
            try:
                answer = await self._short.infer(flows[0])
                if answer is not None:
                    return answer
            except SegmentClosed:  # a moment ago; anew in a worker, where it may be opened
                flows = [Flow(plan, inputs, call, next(self._numbers))]
        answers = self._submit(flows, call)
        try:
            async with asyncio.timeout_at(_loop_time(call.deadline)):
                return join(plan, [await answer for answer in answers])
        except TimeoutError:
            raise DeadlineExceeded from None
        finally:
            self._take_back(flows)

    def _submit(self, flows: Sequence[Flow], call: Call) -> list[asyncio.Future[Answer]]:
        """Let the flows of a request wait, all or none."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = [loop.create_future() for _ in flows]
        with self._changed:
            if self._stopping or not self._threads:
                raise NotReady("The engine is not started.")
            place = self._admission.enter(call.tenant, max(flow.rows for flow in flows), len(flows))
            now = time.perf_counter()
            anybody_waited = len(self._queue) > 0
            for flow, future in zip(flows, futures, strict=True):
                self._open[flow] = _Open(loop, future, now, place)
                self._push(flow.start(), now)
            # Else a worker that has been woken, or that runs, comes; whoever takes work wakes the next.
            if self._free and not anybody_waited:
                self._changed.notify()
        return futures

    @property
    def _is_idle(self) -> bool:
        """Whether the workers wait for work. Not under the lock: what begins at this moment is not disturbed."""
        return not self._open and bool(self._threads) and not self._stopping

    def _take_back(self, flows: Iterable[Flow]) -> None:
        """Forget flows that nobody waits for any more."""
        with self._changed:
            for flow in flows:
                if self._close(flow):
                    self._queue.forget(flow)
            if self._stopping:
                self._changed.notify_all()

    def _close(self, flow: Flow) -> _Open | None:
        found = self._open.pop(flow, None)
        if found is not None and found.queued_s is None:
            found.place.let_go()
        return found

    def _work(self) -> None:
        """Run what waits until told to stop: a worker's life."""
        while (taken := self._next()) is not None:
            self._carry_out(*taken)
            del taken  # else what it held would stay until there is other work

    def _carry_out(self, batch: list[Work], width: int) -> None:
        """Run `batch` on so many lanes, let wait what can follow, and give the answers that are complete."""
        started = time.perf_counter()
        outcomes = self._runners[width].run(batch)
        now = time.perf_counter()
        with self._changed:
            self._free += width
            self._queue.charge(batch, now - started, width / self._lanes.widths[0])
            done = [flow for outcome in outcomes if (flow := self._advance(outcome, now)) is not None]
            answered = [(opened, flow.answer(opened.queued_s or 0.0)) for flow in done if (opened := self._close(flow))]
            if self._stopping:
                self._changed.notify_all()
        _settle(answered)

    def _next(self) -> tuple[list[Work], int] | None:
        """Wait for work and free lanes, and take both; None: there will be no more work."""
        with self._changed:
            while not self._free or not (batch := self._take()):
                if self._stopping and not self._open:
                    return None
                self._changed.wait()
            width = self._lanes.width(self._free, 1 if self._is_brief(batch) else 1 + self._queue.runs(self._free))
            self._free -= width
            if self._free and len(self._queue):
                self._changed.notify()
            return batch, width

    def _is_brief(self, batch: Sequence[Work]) -> bool:
        """Whether `batch` is known to be so short that what waits is better batched than run beside it."""
        per_row = self._times.per_row(batch[0].step.segment)
        return 0 < per_row * sum(work.rows for work in batch) < _BRIEF_S

    def _take(self) -> list[Work]:
        """Take the work of the next run, none where none waits, and note that its requests have begun."""
        batch = self._queue.take()
        now = time.perf_counter()
        for flow in {work.flow for work in batch}:
            begun = self._open[flow]
            if begun.queued_s is None:
                begun.queued_s = now - begun.arrived
                begun.place.let_go()
        return batch

    def _advance(self, outcome: Outcome, now: float) -> Flow | None:
        """Note how work went; what can follow now waits. Return the flow when it is done."""
        flow = outcome[0].flow
        if flow not in self._open:
            return None
        self._push(advance(*outcome), now)
        return flow if flow.done else None

    def _push(self, ready: Iterable[Work], now: float) -> None:
        for work in ready:
            work.ready_s = now
            self._queue.push(work)


@dataclass(eq=False)
class _Open:
    """A flow that somebody waits for. place: of its request, held until its first run. queued_s: how long that took; None: it waits."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Answer]
    arrived: float
    place: Place
    queued_s: float | None = None


def _settle(answered: Sequence[tuple[_Open, Answer]]) -> None:
    """Give the answers to whoever waits: one call for each event loop, because each wakes it up."""
    for loop in {opened.loop for opened, _ in answered}:
        pairs = [(opened.future, answer) for opened, answer in answered if opened.loop is loop]
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_set_results, pairs)


def _set_results(pairs: Sequence[tuple[asyncio.Future[Answer], Answer]]) -> None:
    for future, answer in pairs:
        if not future.done():
            future.set_result(answer)


def _loop_time(deadline: float | None) -> float | None:
    """Return `deadline` (time.monotonic) in the running loop's time."""
    return None if deadline is None else asyncio.get_running_loop().time() + deadline - time.monotonic()
