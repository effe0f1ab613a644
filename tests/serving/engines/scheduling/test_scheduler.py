"""The scheduler: what is batched with what, who goes first, and what becomes of work that expires or is taken back."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.dtypes import Array
from contract.plan import ExecutionPlan, PlanStep, make_plan
from serving.engines.base import Answer, Call, SegmentRun
from serving.engines.scheduling.fair_queue import FairQueue
from serving.engines.scheduling.plan_execution import PlanExecution
from serving.engines.scheduling.scheduler import Scheduler
from serving.errors import DeadlineExceeded, NotReady, QueueFull, SegmentClosed
from tests.serving.nets import CHAINS, LAYERS, TASK_NAMES, images, make_repository, whole

REPOSITORY = make_repository()
Result = TypeVar("Result")


class Segments:
    """The family of nets.py as segments that can be held up, and that note what ran."""

    def __init__(self, **broken: Callable[..., Any]) -> None:
        self.runs: list[tuple[str, int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self._broken = {name.replace("_", "-"): function for name, function in broken.items()}

    def __call__(self, name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        self.entered.set()
        self.gate.wait()
        self.runs.append((name, len(inputs[0])))
        return [self._broken.get(name, LAYERS[name])(*inputs)]


def work_with(
    action: Callable[[Scheduler], Awaitable[Result]], segments: Segments | None = None, limit: int = 6, **options: Any
) -> Result:
    async def go() -> Result:
        scheduler = Scheduler(segments or Segments(), lambda name: limit, **options)
        scheduler.start()
        try:
            return await asyncio.wait_for(action(scheduler), 30)
        finally:
            await scheduler.aclose()

    return asyncio.run(go())


def infer(scheduler: Scheduler, tasks: Sequence[str], rows: int = 1, seed: int = 0, **call: Any) -> Awaitable[Answer]:
    call.setdefault("tenant", tasks[0])
    return scheduler.infer(make_plan(REPOSITORY, tasks), {"image": images(rows, seed)}, Call(**call))


async def behind_the_gate(segments: Segments, scheduler: Scheduler) -> asyncio.Task[Answer]:
    """Return a request whose first run is being held up."""
    segments.gate.clear()
    segments.entered.clear()
    first = asyncio.ensure_future(infer(scheduler, ["late"], tenant="first"))
    await asyncio.to_thread(segments.entered.wait)
    return first


requests = st.lists(
    st.tuples(st.lists(st.sampled_from(TASK_NAMES), min_size=1, unique=True), st.integers(1, 5), st.integers(0, 9)),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40, deadline=None)
@given(requests, st.integers(1, 3), st.integers(1, 7))
def test_every_request_gets_its_own_answer_whatever_it_was_batched_with(
    asked: list[tuple[list[str], int, int]], workers: int, limit: int
) -> None:
    async def go(scheduler: Scheduler) -> list[Answer]:
        return await asyncio.gather(
            *(infer(scheduler, tasks, rows, seed, rows_per_run=max(1, limit // 3)) for tasks, rows, seed in asked)
        )

    segments = Segments()
    for (tasks, rows, seed), answer in zip(asked, work_with(go, segments, limit=limit, workers=workers), strict=True):
        assert set(answer.outputs) == set(tasks)
        for task in tasks:
            np.testing.assert_allclose(answer.outputs[task], whole(task, images(rows, seed)), rtol=1e-4, atol=1e-5)
    assert max(rows for _, rows in segments.runs) <= max(limit, 3)
    wanted = Counter[str]()
    for tasks, rows, _ in asked:
        streams = Counter(segment for task in tasks for segment in CHAINS[task])
        wanted.update({name: rows * (count if name == "suffix" else 1) for name, count in streams.items()})
    done = Counter[str]()
    for name, rows in segments.runs:
        done[name] += rows
    assert done == wanted  # everything once, nothing that nobody asked for


def test_what_waits_is_batched_per_segment_across_tasks() -> None:
    segments = Segments()

    async def go(scheduler: Scheduler) -> None:
        first = await behind_the_gate(segments, scheduler)
        others = [asyncio.ensure_future(infer(scheduler, [task])) for task in ("probe", "colour", "late")]
        await asyncio.sleep(0)
        segments.gate.set()
        answers = await asyncio.gather(first, *others)
        assert [run.batch_rows for run in answers[1].runs] == [3, 1, 2, 1]
        assert all(answer.queue_seconds >= 0 for answer in answers)

    work_with(go, segments)
    assert segments.runs[0] == ("trunk", 1)
    rest = [("trunk", 3), ("mid", 1), ("tuned-a", 1), ("suffix", 2), ("head-probe", 1), ("head-colour", 1), ("branch-late", 2)]
    assert Counter(segments.runs[1:]) == Counter(rest)


def test_a_run_takes_no_more_rows_than_the_limit_and_no_request_is_overtaken_for_being_large() -> None:
    segments = Segments()

    async def go(scheduler: Scheduler) -> None:
        first = await behind_the_gate(segments, scheduler)
        others = [asyncio.ensure_future(infer(scheduler, ["late"], rows, tenant=str(rows))) for rows in (3, 4, 1)]
        await asyncio.sleep(0)
        segments.gate.set()
        await asyncio.gather(first, *others)

    work_with(go, segments, limit=6)
    trunk = [rows for name, rows in segments.runs if name == "trunk"]
    assert trunk == [1, 3, 5]  # 3 + 4 is too much; 1 waits behind 4


def test_the_flood_of_one_tenant_does_not_starve_another() -> None:
    segments = Segments()

    async def go(scheduler: Scheduler) -> None:
        first = await behind_the_gate(segments, scheduler)
        floods = [asyncio.ensure_future(infer(scheduler, ["late"], 2, tenant="flood")) for _ in range(30)]
        await asyncio.sleep(0)
        quiet = asyncio.ensure_future(infer(scheduler, ["late"], 1, tenant="quiet"))
        await asyncio.sleep(0)
        segments.gate.set()
        await asyncio.gather(first, quiet, *floods)

    work_with(go, segments, limit=2)
    trunk = [rows for name, rows in segments.runs if name == "trunk"]
    assert 1 in trunk[1:4]  # what it gets afterwards depends on how long its own run took, which is only fair


def test_a_tenant_that_was_idle_has_earned_nothing() -> None:
    queue = FairQueue(lambda name: 1)
    plan = make_plan(REPOSITORY, ["late"])
    flows = iter(range(1000))

    def push(tenant: str) -> None:
        queue.push(PlanExecution(plan, {"image": images(1)}, Call(tenant), next(flows)).start()[0])

    def serve() -> str:
        batch = queue.take()
        queue.charge(batch, 1.0)
        return batch[0].execution.call.tenant

    for _ in range(10):
        push("busy")
        serve()
    for tenant in ("busy", "late", "busy", "late", "busy", "late"):
        push(tenant)
    served = [serve() for _ in range(6)]
    assert served.count("busy") == 3
    assert (
        max(len(run) for run in "".join(name[0] for name in served).replace("b", " ").split()) <= 2
    )  # in turns, not all at once


def test_a_smaller_priority_number_goes_first() -> None:
    segments = Segments()
    finished: list[int] = []

    async def go(scheduler: Scheduler) -> None:
        first = await behind_the_gate(segments, scheduler)
        others = []
        for priority in (2, 3, 1, 2):
            others.append(asyncio.ensure_future(infer(scheduler, ["late"], priority=priority)))
            others[-1].add_done_callback(lambda _, priority=priority: finished.append(priority))
            await asyncio.sleep(0)
        segments.gate.set()
        await asyncio.gather(first, *others)

    work_with(go, segments, limit=1)
    assert finished == [1, 2, 2, 3]


def test_a_request_in_parts_counts_as_one_until_the_last_has_begun_and_a_share_that_is_full_refuses() -> None:
    segments = Segments()

    async def go(scheduler: Scheduler) -> None:
        first = await behind_the_gate(segments, scheduler)
        large = asyncio.ensure_future(infer(scheduler, ["late"], rows=9, rows_per_run=2))
        await asyncio.sleep(0)
        assert scheduler.queued_rows() == {"late": 2}
        with pytest.raises(
            QueueFull, match=r"^2 rows are waiting for model 'late', whose share of the limit of 4 has no room for"
        ):
            await infer(scheduler, ["late"], rows=2)
        others = [
            asyncio.ensure_future(infer(scheduler, [task], rows=100)) for task in ("probe", "colour")
        ]  # 1 each, of what is free
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match=r"^4 rows are waiting and 4 is the limit; try again later"):
            scheduler.check_room(1, Call("parity"))
        late = await asyncio.gather(infer(scheduler, ["parity"], deadline=time.monotonic()), return_exceptions=True)
        segments.gate.set()
        assert isinstance(late[0], DeadlineExceeded)  # which it is told rather than that there is no room
        assert len((await large).outputs["late"]) == 9
        await asyncio.gather(first, *others)
        assert scheduler.queued_rows() == {}
        assert len((await infer(scheduler, ["late"], rows=30)).outputs["late"]) == 30

    work_with(go, segments, max_queue_rows=4)


def test_a_flood_for_one_model_fills_its_share_and_no_row_of_another_model_is_refused() -> None:
    """20 clients of 64 rows and one of 5,000, who ask again at once, whatever they were told; the other model's client has one row."""
    segments = Segments()
    refused: Counter[str] = Counter()

    async def ask(scheduler: Scheduler, tasks: list[str], rows: int) -> None:
        try:
            await infer(scheduler, tasks, rows, rows_per_run=64)
        except QueueFull:
            refused[tasks[0]] += 1

    async def go(scheduler: Scheduler) -> None:
        first = await behind_the_gate(segments, scheduler)
        for turn in range(60):
            flood = [asyncio.ensure_future(ask(scheduler, ["late"], 5000 if client == 0 else 64)) for client in range(21)]
            quiet = asyncio.ensure_future(ask(scheduler, ["probe"], 1))
            await asyncio.sleep(0)
            assert scheduler.queued_rows().get("probe", 0) == turn + 1
            for one in flood[::5]:
                one.cancel()
        assert scheduler.queued_rows()["late"] in range(600, 769)
        segments.gate.set()
        await asyncio.gather(first, quiet)
        await scheduler.aclose()

    work_with(go, segments, limit=64)
    assert refused["probe"] == 0 < refused["late"]


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
