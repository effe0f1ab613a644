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
from serving.engines.scheduling.admission import Admission, QueuePlace
from serving.engines.scheduling.batches import (
    BatchRunner,
    OnRun,
    OnTogether,
    Outcome,
    RowLimit,
    RunSegment,
    SegmentTimes,
    advance,
)
from serving.engines.scheduling.bundle_step import BundleStep
from serving.engines.scheduling.fair_queue import FairQueue
from serving.engines.scheduling.inline import InlineRuns
from serving.engines.scheduling.plan_execution import PlanExecution, ReadyStep, join_chunks, rows_at_once, split_rows
from serving.engines.scheduling.thread_allocation import ThreadAllocation
from serving.errors import DeadlineExceeded, NotReady, SegmentClosed
from serving.process.threads import to_thread

MAX_QUEUE_ROWS = 1024
_BRIEF_S = 0.001  # some times what it costs to hand a step to a thread, and to hold Python's lock meanwhile


class Scheduler:
    """Answers plans. run_segment(name, arrays of shape (n, ...)) -> arrays of shape (n, ...); raises ServingError.

    limit: the most rows that a segment takes in one run, by groups (`plan_execution.Group`). workers: runs at a time; or allocation: the
    shares of the threads that there are, of which each run takes one or more, and run_on: what runs a segment on so many of them (None:
    run_segment on any number). max_queue_rows: rows of requests that have not begun, of which each tenant has its share (admission.py); of
    a request in chunks, those of one chunk count, and where sizes are free as many as they would be at the reference sizes. on_run: is told
    every run, and the seconds that each request in it waited for it, in the thread of the run. on_together: as of `BatchRunner`.
    is_open: whether a segment can run without being opened first. run_open: as run_segment, but raises SegmentClosed rather than open
    one; None: run_segment never opens any. at_once: where sizes are free, the most rows of a request that a segment is to be given at a
    time, in one run or several; None: as limit. There is no artificial delay: where threads are free, what is there begins.
    """

    def __init__(
        self,
        run_segment: RunSegment,
        limit: RowLimit,
        *,
        workers: int = 1,
        allocation: ThreadAllocation | None = None,
        run_on: Callable[[int], RunSegment] | None = None,
        max_queue_rows: int = MAX_QUEUE_ROWS,
        on_run: OnRun | None = None,
        on_together: OnTogether | None = None,
        is_open: Callable[[str], bool] = lambda segment: True,
        run_open: RunSegment | None = None,
        at_once: RowLimit | None = None,
    ) -> None:
        self._allocation = allocation or ThreadAllocation(workers)
        on_run = on_run or (lambda run, waits: None)
        runs = {width: run_on(width) if run_on else run_segment for width in self._allocation.widths}
        self._runners = {width: BatchRunner(run, limit, on_run, on_together) for width, run in runs.items()}
        self._at_once = at_once or limit
        self._times = SegmentTimes()
        self._inline = InlineRuns(BatchRunner(run_open or run_segment, limit, on_run, on_together), self._times, limit, is_open)
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        # What follows is guarded by `_changed`.
        self._queue = FairQueue(limit, self._times)
        self._open: dict[PlanExecution, _Awaited] = {}
        self._admission = Admission(max_queue_rows)
        self._free = self._allocation.capacity
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
        self._inline.start()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._work, name=f"segments-{i}", daemon=True) for i in range(self._allocation.capacity)
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
        """Return what `plan` gives on `inputs`, run in chunks of `call.rows_per_run` rows.

        Raises QueueFull, DeadlineExceeded, NotReady, TooManyRows. Segments that fail are in the answer's `errors`. Cancelling it takes
        back what has not begun.
        """
        if call.deadline is not None and call.deadline <= time.monotonic():
            raise DeadlineExceeded
        limit = rows_at_once(plan, inputs, call.rows_per_run, self._at_once)
        executions = [PlanExecution(plan, chunk, call, next(self._numbers)) for chunk in split_rows(plan, inputs, limit)]
        if self._is_idle and len(executions) == 1:
            try:
                answer = await self._inline.infer(executions[0])
                if answer is not None:
                    return answer
            except SegmentClosed:  # a moment ago; anew in a worker, where it may be opened
                executions = [PlanExecution(plan, inputs, call, next(self._numbers))]
        answers = self._submit(executions, call)
        try:
            async with asyncio.timeout_at(_loop_time(call.deadline)):
                return join_chunks(plan, [await answer for answer in answers])
        except TimeoutError:
            raise DeadlineExceeded from None
        finally:
            self._take_back(executions)

    def _submit(self, executions: Sequence[PlanExecution], call: Call) -> list[asyncio.Future[Answer]]:
        """Let the executions of a request wait, all or none."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = [loop.create_future() for _ in executions]
        with self._changed:
            if self._stopping or not self._threads:
                raise NotReady("The engine is not started.")
            place = self._admission.enter(call.tenant, max(execution.queued_rows for execution in executions), len(executions))
            now = time.perf_counter()
            anybody_waited = len(self._queue) > 0
            for execution, future in zip(executions, futures, strict=True):
                self._open[execution] = _Awaited(loop, future, now, place)
                self._push(execution.start(), now)
            # Else a worker that has been woken, or that runs, comes; whoever takes a step wakes the next.
            if self._free and not anybody_waited:
                self._changed.notify()
        return futures

    @property
    def _is_idle(self) -> bool:
        """Whether the workers wait for steps. Not under the lock: what begins at this moment is not disturbed."""
        return not self._open and bool(self._threads) and not self._stopping

    def _take_back(self, executions: Iterable[PlanExecution]) -> None:
        """Forget executions that nobody waits for any more."""
        with self._changed:
            for execution in executions:
                if self._close(execution):
                    self._queue.forget(execution)
            if self._stopping:
                self._changed.notify_all()

    def _close(self, execution: PlanExecution) -> _Awaited | None:
        found = self._open.pop(execution, None)
        if found is not None and found.queued_s is None:
            found.place.let_go()
        return found

    def _work(self) -> None:
        """Run what waits until told to stop: a worker's life."""
        while (taken := self._next()) is not None:
            self._carry_out(*taken)
            del taken  # else what it held would stay until there are others

    def _carry_out(self, batch: list[ReadyStep], width: int) -> None:
        """Run `batch` on so many shares, let wait what can follow, and give the answers that are complete."""
        started = time.perf_counter()
        outcomes = self._runners[width].run(batch)
        now = time.perf_counter()
        with self._changed:
            self._free += width
            self._queue.charge(batch, now - started, width / self._allocation.widths[0])
            done = [execution for outcome in outcomes if (execution := self._advance(outcome, now)) is not None]
            answered = [
                (opened, execution.answer(opened.queued_s or 0.0)) for execution in done if (opened := self._close(execution))
            ]
            if self._stopping:
                self._changed.notify_all()
        _settle(answered)

    def _next(self) -> tuple[list[ReadyStep], int] | None:
        """Wait for steps and free shares, and take both; None: there will be no more."""
        with self._changed:
            while not self._free or not (batch := self._take()):
                if self._stopping and not self._open:
                    return None
                self._changed.wait()
            width = self._width(batch)
            self._free -= width
            if self._free and len(self._queue):
                self._changed.notify()
            return batch, width

    def _width(self, batch: Sequence[ReadyStep]) -> int:
        """Return the shares that `batch` takes. A bundle has one thread, and others may be run beside it, however brief they are."""
        if isinstance(batch[0].plan_step, BundleStep):
            return self._allocation.widths[-1]
        return self._allocation.width(self._free, 1 if self._is_brief(batch) else 1 + self._queue.runs(self._free))

    def _is_brief(self, batch: Sequence[ReadyStep]) -> bool:
        """Whether `batch` is known to be so short that what waits is better batched than run beside it."""
        per_row = self._times.per_row(batch[0].segment)
        return 0 < per_row * sum(step.work for step in batch) < _BRIEF_S

    def _take(self) -> list[ReadyStep]:
        """Take the steps of the next run, none where none waits, and note that its requests have begun."""
        batch = self._queue.take()
        now = time.perf_counter()
        for execution in {step.execution for step in batch}:
            begun = self._open[execution]
            if begun.queued_s is None:
                begun.queued_s = now - begun.arrived
                begun.place.let_go()
        return batch

    def _advance(self, outcome: Outcome, now: float) -> PlanExecution | None:
        """Note how a step went; what can follow now waits. Return the execution when it is done."""
        execution = outcome[0].execution
        if execution not in self._open:
            return None
        self._push(advance(*outcome), now)
        return execution if execution.done else None

    def _push(self, ready: Iterable[ReadyStep], now: float) -> None:
        for step in ready:
            step.ready_s = now
            self._queue.push(step)


@dataclass(eq=False)
class _Awaited:
    """Of an execution that somebody waits for. place: of its request, held until the first run.

    queued_s: how long that took; None: it waits.
    """

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Answer]
    arrived: float
    place: QueuePlace
    queued_s: float | None = None


def _settle(answered: Sequence[tuple[_Awaited, Answer]]) -> None:
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
