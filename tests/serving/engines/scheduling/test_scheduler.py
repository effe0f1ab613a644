"""The scheduler: what is batched with what, who goes first, and who finds no room."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.plan import make_plan
from serving.engines.base import Answer, Call
from serving.engines.scheduling.fair_queue import FairQueue
from serving.engines.scheduling.plan_execution import PlanExecution
from serving.engines.scheduling.scheduler import Scheduler
from serving.errors import DeadlineExceeded, QueueFull
from tests.serving.engines.scheduling.held_up import REPOSITORY, Segments, behind_the_gate, infer, work_with
from tests.serving.nets import CHAINS, TASK_NAMES, images, whole

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
