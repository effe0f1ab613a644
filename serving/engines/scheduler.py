"""Runs plans on a function that runs one segment, in worker threads: requests that wait are batched per segment, whoever asked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving.engines.base import Answer, Array, Call, SegmentRun
from serving.engines.fair_queue import FairQueue
from serving.engines.flow import Flow, Work
from serving.errors import DeadlineExceeded, EngineError, NotReady, QueueFull, ServingError
from serving.plan import ExecutionPlan

RunSegment = Callable[[str, Sequence[Array]], Sequence[Array]]
OnRun = Callable[[SegmentRun, Sequence[float]], None]

MAX_QUEUE_ROWS = 1024
_SMALL_S = 0.0003  # of the order of waking a thread and being woken
_Outcome = tuple[Work, Sequence[Array] | ServingError, SegmentRun]


class Scheduler:
    """Answers plans. run_segment(name, arrays of shape (n, ...)) -> arrays of shape (n, ...); raises ServingError.

    limit: the most rows that a segment takes in one run. workers: threads, so many runs at a time. max_queue_rows: rows of requests that
    have not begun; beyond it requests are refused, unless nothing waits. on_run: is told every run, and the seconds that each
    request in it waited for it, in its worker's thread.
    There is no artificial delay: a worker that is free takes what is there.
    """

    def __init__(
        self,
        run_segment: RunSegment,
        limit: Callable[[str], int],
        *,
        workers: int = 1,
        max_queue_rows: int = MAX_QUEUE_ROWS,
        on_run: OnRun | None = None,
    ) -> None:
        self._run_segment = run_segment
        self._limit = limit
        self._workers = workers
        self._max_queue_rows = max_queue_rows
        self._on_run = on_run or (lambda run, waits: None)
        self._threads: list[threading.Thread] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        # What follows is guarded by `_changed`.
        self._queue = FairQueue(limit, self._is_wanted)
        self._open: dict[Flow, _Open] = {}
        self._queued_rows = 0
        self._busy = 0  # runs that are under way
        self._stopping = False

    @property
    def queued_rows(self) -> int:
        """Return the rows of requests that have not begun."""
        return self._queued_rows

    def start(self) -> None:
        """Start the workers."""
        self._stopping = False
        self._threads = [threading.Thread(target=self._work, name=f"segments-{i}", daemon=True) for i in range(self._workers)]
        for thread in self._threads:
            thread.start()

    async def aclose(self) -> None:
        """Finish what has been asked for, then stop the workers."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        threads, self._threads = self._threads, []
        for thread in threads:
            await asyncio.to_thread(thread.join)

    async def infer(self, plan: ExecutionPlan, inputs: Mapping[str, Array], call: Call) -> Answer:
        """Return what `plan` gives on `inputs`, run in parts of `call.rows_per_run` rows.

        Raises QueueFull, DeadlineExceeded, NotReady. Segments that fail are in the answer's `errors`. Cancelling it takes back what has
        not begun.
        """
        rows = len(next(iter(inputs.values())))
        flows = [Flow(plan, part, call, next(self._numbers)) for part in _split(inputs, rows, call.rows_per_run or rows)]
        answers = self._submit(flows, rows)
        try:
            async with asyncio.timeout_at(_loop_time(call.deadline)):
                return _join(plan, [await answer for answer in answers])
        except TimeoutError:
            raise DeadlineExceeded from None
        finally:
            self._take_back(flows)

    def _submit(self, flows: Sequence[Flow], rows: int) -> list[asyncio.Future[Answer]]:
        """Let the flows wait, all or none; run them at once where that takes less time than waking a worker and being woken."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answer]] = [loop.create_future() for _ in flows]
        with self._changed:
            if self._stopping or not self._threads:
                raise NotReady("The engine is not started.")
            if self._queued_rows and self._queued_rows + rows > self._max_queue_rows:
                raise QueueFull(self._queued_rows, self._max_queue_rows)
            self._queued_rows += rows
            now = time.perf_counter()
            for flow, future in zip(flows, futures, strict=True):
                self._open[flow] = _Open(loop, future, now)
                self._push(flow.start(), now)
            here = self._is_small(flows)
            if here:
                self._busy += 1
            else:
                self._changed.notify(len(flows))
        if here:
            self._run_here(flows[0])
        return futures

    def _is_small(self, flows: Sequence[Flow]) -> bool:
        """Return whether nothing else runs or waits, and the flow is known to be short."""
        if self._busy or len(flows) > 1 or len(self._open) > 1:
            return False
        expected = self._queue.expected_seconds(flows[0])
        return expected is not None and expected < _SMALL_S

    def _run_here(self, flow: Flow) -> None:
        """Be a worker, in the caller's thread, until `flow` is done."""
        while flow in self._open:
            with self._changed:
                batch = self._take()
            if batch:
                self._carry_out(batch)
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()  # of what came meanwhile, from other threads

    def _take_back(self, flows: Iterable[Flow]) -> None:
        """Forget flows that nobody waits for any more."""
        with self._changed:
            for flow in flows:
                self._close(flow)
            if self._stopping:
                self._changed.notify_all()

    def _close(self, flow: Flow) -> _Open | None:
        found = self._open.pop(flow, None)
        if found is not None and found.queued_s is None:
            self._queued_rows -= flow.rows
        return found

    def _work(self) -> None:
        """Run what waits until told to stop: a worker's life."""
        while (batch := self._next()) is not None:
            self._carry_out(batch)
            with self._changed:
                self._busy -= 1

    def _carry_out(self, batch: list[Work]) -> None:
        """Run `batch`, let wait what can follow, and give the answers that are complete."""
        started = time.perf_counter()
        outcomes = self._run(batch)
        now = time.perf_counter()
        with self._changed:
            self._queue.charge(batch, now - started)
            done = [flow for work, outcome, run in outcomes if (flow := self._advance(work, outcome, run, now)) is not None]
            answered = [(opened, flow.answer(opened.queued_s or 0.0)) for flow in done if (opened := self._close(flow))]
            if len(self._queue) > 1 or self._stopping:
                self._changed.notify_all()
        _settle(answered)

    def _next(self) -> list[Work] | None:
        """Wait for work and take it; None: there will be no more."""
        with self._changed:
            while not (batch := self._take()):
                if self._stopping and not self._open:
                    return None
                self._changed.wait()
            self._busy += 1
            return batch

    def _take(self) -> list[Work]:
        """Take the work of the next run, none where none waits, and note that its requests have begun."""
        batch = self._queue.take()
        now = time.perf_counter()
        for flow in {work.flow for work in batch}:
            begun = self._open[flow]
            if begun.queued_s is None:
                begun.queued_s = now - begun.arrived
                self._queued_rows -= flow.rows
        return batch

    def _is_wanted(self, work: Work) -> bool:
        return work.flow in self._open

    def _run(self, batch: list[Work]) -> list[_Outcome]:
        """Run one segment on all of `batch`. When that fails, each is run by itself: what is wrong with one is not the others' fault."""
        started, started_ns = time.perf_counter(), time.time_ns()
        rows = sum(work.rows for work in batch)
        segment = batch[0].step.segment
        try:
            results = self._run_in_pieces(segment, _stack([work.inputs() for work in batch]), rows)
            _check(segment, results, rows, len(batch[0].step.outputs[0]))
        except BaseException as error:  # whatever happens in a segment, the worker lives on
            if len(batch) > 1:
                return [outcome for work in batch for outcome in self._run([work])]
            known = error if isinstance(error, ServingError) else EngineError(f"Segment {segment!r} failed on {rows} rows.")
            known.__cause__ = known.__cause__ or (None if known is error else error)
            return [(batch[0], known, SegmentRun(segment, rows, time.perf_counter() - started))]
        seconds = time.perf_counter() - started
        self._on_run(SegmentRun(segment, rows, seconds), [started - work.ready_s for work in batch])
        ends = list(itertools.accumulate(work.rows for work in batch))
        return [
            (
                work,
                [result[end - work.rows : end] for result in results],
                SegmentRun(segment, work.rows, seconds, rows, started - work.ready_s, started_ns),
            )
            for work, end in zip(batch, ends, strict=True)
        ]

    def _run_in_pieces(self, segment: str, inputs: Sequence[Array], rows: int) -> Sequence[Array]:
        limit = self._limit(segment)
        if rows <= limit:
            return self._run_segment(segment, inputs)
        pieces = [self._run_segment(segment, [i[start : start + limit] for i in inputs]) for start in range(0, rows, limit)]
        return [np.concatenate(parts) for parts in zip(*pieces, strict=True)]

    def _advance(self, work: Work, outcome: Sequence[Array] | ServingError, run: SegmentRun, now: float) -> Flow | None:
        """Note how `work` went; what can follow now waits. Return the flow when it is done."""
        flow = work.flow
        if flow not in self._open:
            return None
        self._push(flow.fail(work, outcome) if isinstance(outcome, ServingError) else flow.finish(work, outcome, run), now)
        return flow if flow.done else None

    def _push(self, ready: Iterable[Work], now: float) -> None:
        for work in ready:
            work.ready_s = now
            self._queue.push(work)


@dataclass(eq=False)
class _Open:
    """A flow that somebody waits for. queued_s: how long it waited for its first run; None: it still does."""

    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Answer]
    arrived: float
    queued_s: float | None = None


def _check(segment: str, results: Sequence[Array], rows: int, outputs: int) -> None:
    """Raise EngineError unless there are `outputs` results of `rows` rows: a worker must not stumble over them later."""
    if len(results) != outputs or any(len(result) != rows for result in results):
        shapes = ", ".join(str(list(np.shape(result))) for result in results)
        raise EngineError(
            f"Segment {segment!r} gave results of shape {shapes} for {rows} rows; {outputs} of so many rows were due."
        )


def _settle(answered: Sequence[tuple[_Open, Answer]]) -> None:
    """Give the answers to whoever waits, from any thread: one call for each event loop, because each wakes it up."""
    try:
        here: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
    except RuntimeError:
        here = None  # a worker's thread
    for loop in {opened.loop for opened, _ in answered}:
        pairs = [(opened.future, answer) for opened, answer in answered if opened.loop is loop]
        if loop is here:
            _set_results(pairs)
            continue
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_set_results, pairs)


def _set_results(pairs: Sequence[tuple[asyncio.Future[Answer], Answer]]) -> None:
    for future, answer in pairs:
        if not future.done():
            future.set_result(answer)


def _loop_time(deadline: float | None) -> float | None:
    """Return `deadline` (time.monotonic) in the running loop's time."""
    return None if deadline is None else asyncio.get_running_loop().time() + deadline - time.monotonic()


def _split(inputs: Mapping[str, Array], rows: int, limit: int) -> Iterator[Mapping[str, Array]]:
    if rows <= limit:
        return iter([inputs])
    return ({name: values[start : start + limit] for name, values in inputs.items()} for start in range(0, rows, limit))


def _stack(inputs: Sequence[Sequence[Array]]) -> Sequence[Array]:
    return inputs[0] if len(inputs) == 1 else [np.concatenate(arrays) for arrays in zip(*inputs, strict=True)]


def _join(plan: ExecutionPlan, answers: Sequence[Answer]) -> Answer:
    """Return the answers of all parts as one; an output that failed in one part has failed."""
    if len(answers) == 1:
        return answers[0]
    errors = {name: error for answer in reversed(answers) for name, error in answer.errors.items()}
    outputs = {name: np.concatenate([answer.outputs[name] for answer in answers]) for name in plan.outputs if name not in errors}
    runs = tuple(run for answer in answers for run in answer.runs)
    return Answer(outputs, runs, errors, max(answer.queue_seconds for answer in answers))
