"""Runs requests that are known to be short where they arrive, those of one turn of the event loop together.

Handing a request to a worker's thread and back costs more than a tiny network takes. What arrives in one turn of the event loop is run
in the next, per segment in one batch, whoever asked; that is no delay, because the turn had to end anyway.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from serving.engines.base import Answer
from serving.engines.scheduling.batches import BatchRunner, RowLimit, SegmentTimes, advance
from serving.engines.scheduling.lockstep import Lockstep
from serving.engines.scheduling.plan_execution import Group, PlanExecution, ReadyStep
from serving.errors import DeadlineExceeded, SegmentClosed

_REQUEST_S = 0.0005  # of the order of waking a thread and being woken
_TURN_S = 0.002  # that the event loop is held up, as far as can be told


@dataclass(eq=False, slots=True)
class _Waiting:
    """An execution of this turn. expected_s: that it will take."""

    execution: PlanExecution
    expected_s: float
    arrived: float = field(default_factory=time.perf_counter)
    answer: Answer | None = None


class InlineRuns:
    """Answers requests in the event loop's thread. limit: the most rows of a run, by group. is_open: whether a segment can run at once.

    runner: raises SegmentClosed for a segment that is not open any more when its run comes, rather than open it.
    """

    def __init__(self, runner: BatchRunner, times: SegmentTimes, limit: RowLimit, is_open: Callable[[str], bool]) -> None:
        self._runner = runner
        self._lockstep = Lockstep(runner, times)
        self._times = times
        self._limit = limit
        self._is_open = is_open
        self._waiting: list[_Waiting] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Serve the running event loop from now on, and no other: what waits is not guarded against other threads."""
        self._loop = asyncio.get_running_loop()

    async def infer(self, execution: PlanExecution) -> Answer | None:
        """Return the answer of `execution`, None when it may not be short, or this turn of the event loop is full: it has not begun then.

        Raises DeadlineExceeded if it is too late to begin; SegmentClosed if a segment was closed since it was looked at: then `execution`
        has begun, and is of no use any more. Cancelling it takes it back.
        """
        expected_s = self._times.of(execution)
        if expected_s is None or not self._has_room(execution, expected_s):
            return None
        waiting = _Waiting(execution, expected_s)
        self._waiting.append(waiting)
        try:
            await asyncio.sleep(0)
        except BaseException:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            raise
        if waiting.answer is None and waiting in self._waiting:
            self._run_all()
        if waiting.answer is None:
            raise DeadlineExceeded
        for error in waiting.answer.errors.values():
            if isinstance(error, SegmentClosed):
                raise error
        return waiting.answer

    def _has_room(self, execution: PlanExecution, expected_s: float) -> bool:
        if self._loop is not asyncio.get_running_loop() or expected_s >= _REQUEST_S:
            return False
        if sum([waiting.expected_s for waiting in self._waiting]) + expected_s >= _TURN_S:
            return False
        return all(self._is_open(step.segment) for step in execution.plan.steps)

    def _run_all(self) -> None:
        turn, self._waiting = self._waiting, []
        now = time.monotonic()
        begun = [one for one in turn if one.execution.call.deadline is None or one.execution.call.deadline > now]
        started = time.perf_counter()
        queued_s = [started - one.arrived for one in begun]
        for one, answer in zip(begun, self._answers([one.execution for one in begun], queued_s), strict=True):
            one.answer = answer

    def _answers(self, executions: Sequence[PlanExecution], queued_s: Sequence[float]) -> Sequence[Answer]:
        answers = self._lockstep.answers(executions, queued_s) if executions else ()
        if answers is not None:
            return answers
        self._run(executions)
        return [execution.answer(waited_s) for execution, waited_s in zip(executions, queued_s, strict=True)]

    def _run(self, executions: Iterable[PlanExecution]) -> None:
        """Run all executions to their ends."""
        ready: dict[Group, list[ReadyStep]] = {}
        _add(ready, (step for execution in executions for step in execution.start()))
        while ready:
            group = next(iter(ready))
            for batch in _batches(ready.pop(group), self._limit(group)):
                started = time.perf_counter()
                outcomes = self._runner.run(batch)
                if not isinstance(outcomes[0][1], SegmentClosed):
                    self._times.note(batch[0].segment, sum(step.work for step in batch), time.perf_counter() - started)
                for outcome in outcomes:
                    _add(ready, advance(*outcome))


def _add(ready: dict[Group, list[ReadyStep]], steps: Iterable[ReadyStep]) -> None:
    now = time.perf_counter()
    for step in steps:
        step.ready_s = now
        ready.setdefault(step.group, []).append(step)


def _batches(steps: Sequence[ReadyStep], limit: int) -> Iterator[list[ReadyStep]]:
    """Yield `steps` in batches of `limit` rows; one that takes up more is a batch of its own."""
    batch: list[ReadyStep] = []
    taken = 0
    for step in steps:
        if batch and taken + step.room > limit:
            yield batch
            batch, taken = [], 0
        batch.append(step)
        taken += step.room
    if batch:
        yield batch
