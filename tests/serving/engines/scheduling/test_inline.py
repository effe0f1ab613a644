"""Requests that are known to be short: batched with what arrives in the same turn of the event loop."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.dtypes import Array
from contract.plan import make_plan
from serving.engines.base import Answer, Call, SegmentRun
from serving.engines.scheduling.batches import BatchRunner, SegmentTimes
from serving.engines.scheduling.inline import InlineRuns
from serving.engines.scheduling.plan_execution import PlanExecution
from serving.errors import DeadlineExceeded, EngineError, SegmentClosed
from tests.serving.nets import LAYERS, TASK_NAMES, images, make_repository, whole

REPOSITORY = make_repository()
Result = TypeVar("Result")


class Family:
    """The family of nets.py behind `InlineRuns`, known to be quick. runs: what ran. closes: a segment that is closed when its run comes."""

    def __init__(
        self, limit: int = 100, closed: str = "", broken: Callable[[Array], Array] | None = None, closes: str = ""
    ) -> None:
        self.runs: list[tuple[str, int]] = []
        self.times = SegmentTimes()
        self.be_quick()
        self._broken = broken
        self._closes = closes
        runner = BatchRunner(self._run, lambda name: limit, self._note)
        self.short = InlineRuns(runner, self.times, lambda name: limit, lambda name: name != closed)

    def _run(self, name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        if name == self._closes:
            raise SegmentClosed(name)
        layer = self._broken if self._broken is not None and name == "head-probe" else LAYERS[name]
        return [layer(*inputs)]

    def be_quick(self) -> None:
        """Know nothing of how long the runs have really taken: the machine may have been busy."""
        self.times.forget(LAYERS)
        for name in LAYERS:
            self.times.note(name, 1, 1e-7)

    async def infer(self, flow: PlanExecution) -> Answer:
        """Return its answer; there is room."""
        answer = await self.short.infer(flow)
        assert answer is not None
        return answer

    def _note(self, run: SegmentRun, waits: Sequence[float]) -> None:
        self.runs.append((run.segment, run.rows))

    def flow(self, tasks: Sequence[str], rows: int = 1, seed: int = 0, **call: float) -> PlanExecution:
        return PlanExecution(make_plan(REPOSITORY, tasks), {"image": images(rows, seed)}, Call("", **call), seed)  # type: ignore[arg-type]


def ask(work: Callable[[], Awaitable[Result]]) -> Result:
    async def go() -> Result:
        return await work()

    return asyncio.run(go())


requests = st.lists(
    st.tuples(st.lists(st.sampled_from(TASK_NAMES), min_size=1, unique=True), st.integers(1, 3)), min_size=1, max_size=6
)


@settings(max_examples=40, deadline=None)
@given(requests, st.integers(1, 7))
def test_every_request_of_a_turn_gets_its_own_answer_and_no_run_is_too_large(
    asked: list[tuple[list[str], int]], limit: int
) -> None:
    family = Family(limit)
    flows = [family.flow(tasks, rows, seed) for seed, (tasks, rows) in enumerate(asked)]

    async def go() -> list[Answer]:
        family.short.start()
        return await asyncio.gather(*(family.infer(flow) for flow in flows))

    for seed, ((tasks, rows), answer) in enumerate(zip(asked, ask(go), strict=True)):
        assert not answer.errors
        for task in tasks:
            np.testing.assert_allclose(answer.outputs[task], whole(task, images(rows, seed)), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
        assert all(run.rows <= run.batch_rows for run in answer.runs)
    assert sum(rows for name, rows in family.runs if name == "trunk") == sum(rows for _, rows in asked)


def test_what_arrives_in_one_turn_shares_its_runs_across_tasks() -> None:
    family = Family()
    flows = [family.flow([task]) for task in ("late", "probe", "late")]

    async def go() -> None:
        family.short.start()
        await asyncio.gather(*(family.infer(flow) for flow in flows))
        family.be_quick()
        await family.infer(family.flow(["probe"]))

    ask(go)
    runs = Counter(family.runs)
    assert (runs["trunk", 3], runs["branch-late", 2], runs["trunk", 1]) == (1, 1, 1)


def test_one_that_is_cancelled_or_too_late_is_not_run_and_the_others_are() -> None:
    family = Family()

    async def go() -> Sequence[Answer | BaseException]:
        family.short.start()
        tasks = [
            asyncio.ensure_future(family.infer(flow))
            for flow in (
                family.flow(["late"]),
                family.flow(["late"], deadline=time.monotonic() - 1),
                family.flow(["late"]),
            )
        ]
        asyncio.get_running_loop().call_soon(tasks[0].cancel)  # in the turn in which they wait
        return await asyncio.gather(*tasks, return_exceptions=True)

    cancelled, late, answered = ask(go)
    assert isinstance(late, DeadlineExceeded)
    assert isinstance(cancelled, asyncio.CancelledError)
    assert isinstance(answered, Answer)
    assert set(answered.outputs) == {"late"}
    assert all(rows == 1 for _, rows in family.runs)


def refuse_negative(rows: Array) -> Array:
    if len(rows) > 1 or rows.sum() == 0:
        raise EngineError("no")
    return LAYERS["head-probe"](rows)


def test_a_run_that_fails_for_several_is_tried_for_each() -> None:
    family = Family(broken=refuse_negative)
    flows = [family.flow(["probe"], seed=seed) for seed in (1, 2)]

    async def go() -> list[Answer]:
        family.short.start()
        return await asyncio.gather(*(family.infer(flow) for flow in flows))

    assert [set(answer.outputs) for answer in ask(go)] == [{"probe"}, {"probe"}]


@pytest.mark.parametrize("why", ["unknown", "slow", "closed", "another loop", "full"])
def test_there_is_no_room_for_what_may_hold_up_the_event_loop(why: str) -> None:
    family = Family(closed="branch-late" if why == "closed" else "")

    async def go() -> bool:
        family.short.start()
        await family.infer(family.flow(["probe"]))
        family.runs.clear()
        family.be_quick()
        if why == "unknown":
            family.short._times = SegmentTimes()  # as at the start
        if why == "slow":
            for _ in range(40):
                family.times.note("branch-late", 1, 0.01)
        if why == "another loop":
            return await asyncio.to_thread(lambda: asyncio.run(is_run("probe")))
        if why == "full":
            for _ in range(40):
                family.times.note("branch-late", 1, 0.00045)
        waiting = [asyncio.ensure_future(family.infer(family.flow(["late"]))) for _ in range(4 if why == "full" else 0)]
        last = asyncio.ensure_future(is_run("late"))
        await asyncio.gather(*waiting, last)
        return last.result()

    async def is_run(task: str) -> bool:
        return await family.short.infer(family.flow([task])) is not None

    assert not ask(go)
    assert Counter(family.runs)["branch-late", 4] == (why == "full")


def test_runs_that_were_held_up_by_others_on_the_machine_do_not_make_a_segment_long() -> None:
    times = SegmentTimes()
    times.note("trunk", 2, 2e-5)
    for seconds in [1e-5] * 10 + [0.05] + [1e-5] * 10:
        times.note("trunk", 1, seconds)
        assert times.per_row("trunk") <= 1.7e-5
    for _ in range(25):
        times.note("trunk", 1, 0.05)
    assert times.per_row("trunk") > 0.03  # one that takes long indeed is known for it soon


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_requests_with_the_same_plan_run_together_and_get_their_own_rows(limit: int) -> None:
    family = Family(limit)
    plan = make_plan(REPOSITORY, ["late"])
    flows = [PlanExecution(plan, {"image": images(rows, rows)}, Call(), rows) for rows in (1, 2, 3)]

    async def go() -> list[Answer]:
        family.short.start()
        return await asyncio.gather(*(family.infer(flow) for flow in flows))

    for rows, answer in zip((1, 2, 3), ask(go), strict=True):
        np.testing.assert_allclose(answer.outputs["late"], whole("late", images(rows, rows)), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]
        assert [(run.segment, run.rows) for run in answer.runs] == [(step.segment, rows) for step in plan.steps]
        assert all(run.queue_seconds >= 0 and run.started_ns for run in answer.runs)
    expected = [(step.segment, 6) for step in plan.steps]
    assert (family.runs == expected) is (limit == 100)
    assert sum(rows for name, rows in family.runs if name == "trunk") == 6


def test_a_run_that_fails_for_requests_with_the_same_plan_is_counted_once_and_its_answer_says_why() -> None:
    def refuse(rows: Array) -> Array:
        raise EngineError("no")

    family = Family(broken=refuse)
    plan = make_plan(REPOSITORY, ["probe"])
    flows = [PlanExecution(plan, {"image": images(1, seed)}, Call(), seed) for seed in (1, 2)]

    async def go() -> list[Answer]:
        family.short.start()
        return await asyncio.gather(*(family.infer(flow) for flow in flows))

    assert [str(answer.errors["probe"]) for answer in ask(go)] == ["no", "no"]
    assert family.runs == [(step.segment, 2) for step in plan.steps if step.segment != "head-probe"]


def test_what_is_closed_before_its_run_is_not_opened_and_the_others_are_run() -> None:
    family = Family(closes="branch-late")
    before = family.times.per_row("branch-late")

    async def go() -> Sequence[Answer | BaseException]:
        family.short.start()
        flows = [family.flow([task]) for task in ("late", "probe", "late")]
        return await asyncio.gather(*(family.infer(flow) for flow in flows), return_exceptions=True)

    first, answered, last = ask(go)
    assert isinstance(first, SegmentClosed)
    assert isinstance(last, SegmentClosed)
    assert isinstance(answered, Answer)
    assert set(answered.outputs) == {"probe"}
    assert family.times.per_row("branch-late") == before  # it did not run
