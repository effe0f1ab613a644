"""Work that expires or is taken back, short runs in the caller's thread, and what stays of what is over: nothing."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.dtypes import Array
from contract.plan import ExecutionPlan, PlanStep, make_plan
from serving.engines.base import Call, SegmentRun
from serving.engines.scheduling.plan_execution import PlanExecution
from serving.engines.scheduling.scheduler import Scheduler
from serving.errors import DeadlineExceeded, NotReady, SegmentClosed
from tests.serving.engines.scheduling.held_up import REPOSITORY, Segments, behind_the_gate, infer, work_with
from tests.serving.nets import LAYERS, TASK_NAMES, images, whole


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TASK_NAMES), st.integers(1, 9), st.booleans()), max_size=20), st.integers(1, 3))
def test_whatever_is_taken_back_and_whatever_runs_nothing_stays_counted(asked: list[tuple[str, int, bool]], turns: int) -> None:
    async def go(scheduler: Scheduler) -> None:
        requests = [asyncio.ensure_future(infer(scheduler, [task], rows, rows_per_run=2)) for task, rows, _ in asked]
        for _ in range(turns):
            await asyncio.sleep(0)
        for request, (*_, leaves) in zip(requests, asked, strict=True):
            if leaves:
                request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        assert scheduler.queued_rows() == {}

    work_with(go, max_queue_rows=30, workers=2)


def test_what_is_taken_back_lets_go_of_its_tensors_while_others_keep_the_workers_busy() -> None:
    segments = Segments()

    async def go(scheduler: Scheduler) -> None:
        first = await behind_the_gate(segments, scheduler)
        rows = images(2)
        tensor = weakref.ref(rows)
        gone = asyncio.ensure_future(scheduler.infer(make_plan(REPOSITORY, ["probe"]), {"image": rows}, Call("gone")))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        del rows, gone
        gc.collect()  # the exception's traceback
        held = tensor() is not None
        segments.gate.set()
        await first
        assert not held

    work_with(go, segments)


@pytest.mark.parametrize("how", ["deadline", "cancelled"])
def test_what_nobody_waits_for_any_more_is_not_started(how: str) -> None:
    segments = Segments()

    async def go(scheduler: Scheduler) -> None:
        first = await behind_the_gate(segments, scheduler)
        deadline = time.monotonic() + 0.02 if how == "deadline" else None
        gone = asyncio.ensure_future(infer(scheduler, ["probe"], 2, deadline=deadline))
        await asyncio.sleep(0)
        if how == "cancelled":
            gone.cancel()
        with pytest.raises(DeadlineExceeded if how == "deadline" else asyncio.CancelledError):
            await gone
        assert scheduler.queued_rows() == {}
        segments.gate.set()
        await first
        await infer(scheduler, ["late"])

    work_with(go, segments)
    assert Counter(segments.runs) == {("trunk", 1): 2, ("branch-late", 1): 2}


def test_what_is_taken_back_half_way_goes_no_further() -> None:
    segments = Segments()

    async def go(scheduler: Scheduler) -> None:
        first = await behind_the_gate(segments, scheduler)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        segments.gate.set()

    work_with(go, segments)
    assert segments.runs == [("trunk", 1)]


def test_what_is_known_to_be_short_runs_in_the_callers_thread_and_what_is_not_does_not() -> None:
    threads: list[str] = []

    def note(rows: Array) -> Array:
        threads.append(threading.current_thread().name)
        return LAYERS["branch-late"](rows)

    def slow(rows: Array) -> Array:
        time.sleep(0.002)
        return note(rows)

    async def go(scheduler: Scheduler) -> None:
        for _ in range(60):  # until a short run, and not a hiccup, is what is known
            await infer(scheduler, ["late"])

    work_with(go, Segments(branch_late=note))
    assert threads[0].startswith("segments-")
    assert threading.current_thread().name in threads
    threads.clear()
    work_with(go, Segments(branch_late=slow))
    assert all(name.startswith("segments-") for name in threads)


def test_what_is_closed_before_its_short_run_is_opened_by_a_worker_and_answered() -> None:
    ran_in: list[str] = []
    closed = False

    def run_open(name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        if closed and name == "mid":
            raise SegmentClosed(name)
        return segments(name, inputs)

    def note(rows: Array) -> Array:
        ran_in.append(threading.current_thread().name)
        return LAYERS["mid"](rows)

    segments = Segments(mid=note)

    async def go(scheduler: Scheduler) -> None:
        nonlocal closed
        await infer(scheduler, ["probe"])
        closed = True
        for name in LAYERS:
            for _ in range(60):
                scheduler._times.note(name, 1, 1e-6)  # whatever a busy machine has taught it
        segments.runs.clear()
        answer = await infer(scheduler, ["probe", "late"], 2)
        np.testing.assert_allclose(answer.outputs["probe"], whole("probe", images(2)), rtol=1e-4, atol=1e-5)
        assert not answer.errors
        assert segments.runs.count(("trunk", 2)) == 2  # the first time in the event loop's thread

    work_with(go, segments, run_open=run_open)
    assert [name.startswith("segments-") for name in ran_in] == [True, True]


def test_of_segments_and_tenants_that_are_gone_nothing_stays() -> None:
    async def go(scheduler: Scheduler) -> None:
        for number in range(300):
            await infer(scheduler, ["late"], tenant=f"task-{number}")
            for name in LAYERS:
                scheduler._times.note(name, 1, 0.01)  # not short
        assert len(scheduler._queue._clock) < 100
        scheduler.forget(["trunk", "unknown"])
        assert (scheduler._times.per_row("trunk"), scheduler._times.per_row("mid") > 0) == (0.0, True)

    work_with(go)


def test_closing_finishes_what_was_asked_for_and_refuses_what_comes() -> None:
    segments = Segments()

    async def go() -> None:
        scheduler = Scheduler(segments, lambda name: 6)
        scheduler.start()
        first = await behind_the_gate(segments, scheduler)
        second = asyncio.ensure_future(infer(scheduler, ["probe"]))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(scheduler.aclose())
        await asyncio.sleep(0.01)
        with pytest.raises(NotReady):
            await infer(scheduler, ["late"])
        segments.gate.set()
        await asyncio.gather(first, second, closing)
        assert not second.result().errors

    asyncio.run(go())


def test_a_tensor_is_dropped_after_its_last_use() -> None:
    steps = (PlanStep("a", (("x",),), (("y",),)), PlanStep("b", (("y",),), (("z",),)))
    flow = PlanExecution(ExecutionPlan(("x",), steps, {"z": "z"}), {"x": np.ones((2, 1))}, Call(), 0)
    (first,) = flow.start()
    (second,) = flow.finish(first, [np.ones((2, 1))], SegmentRun("a", 2, 0.0))
    with pytest.raises(KeyError):
        flow.stacked(steps[0], (0,))
    flow.finish(second, [np.ones((2, 1))], SegmentRun("b", 2, 0.0))
    assert flow.done
    assert set(flow.answer().outputs) == {"z"}


def test_what_a_segment_gives_for_other_plans_is_not_held() -> None:
    steps = (PlanStep("a", (("x",),), (("level", "y"),)), PlanStep("b", (("y",),), (("z",),)))
    flow = PlanExecution(ExecutionPlan(("x",), steps, {"z": "z"}), {"x": np.ones((2, 1))}, Call(), 0)
    (first,) = flow.start()
    (second,) = flow.finish(first, [np.zeros((2, 9)), np.ones((2, 1))], SegmentRun("a", 2, 0.0))
    with pytest.raises(KeyError):
        flow.stacked(PlanStep("any", (("level",),), ()), (0,))
    assert second.inputs()[0].all()
