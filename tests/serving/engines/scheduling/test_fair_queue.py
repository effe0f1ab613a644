"""The queue: what it gives away is given once, and what has gone leaves nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.plan import ExecutionPlan, PlanStep, make_plan
from serving.engines.base import Call
from serving.engines.scheduling.fair_queue import FairQueue
from serving.engines.scheduling.plan_execution import PlanExecution, ReadyStep
from tests.serving.nets import images, make_repository

REPOSITORY = make_repository()


def test_the_queue_forgets_what_it_gave_away() -> None:
    queue = FairQueue(lambda name: 3)
    plan = make_plan(REPOSITORY, ["late"])
    kept: list[ReadyStep] = []
    for number in range(200):
        queue.push(PlanExecution(plan, {"image": images(1)}, Call(str(number % 3)), number).start()[0])
        if number % 3 == 2:
            kept += queue.take()
    assert len(kept) == 200 - 200 % 3
    assert len(queue) == 200 % 3
    heaps = [*queue._by_tenant.values(), *(heap for heaps in queue._by_group.values() for heap in heaps.values())]
    assert sum(map(len, heaps)) < 20


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(["push", "push first", "forget", "take"]), min_size=1, max_size=40), st.integers(0, 9))
def test_the_queue_gives_away_what_is_not_forgotten_once(steps: list[str], seed: int) -> None:
    random = np.random.default_rng(seed)
    queue = FairQueue(lambda name: 2)
    plan = make_plan(REPOSITORY, ["late"])
    flows: dict[int, PlanExecution] = {}
    waiting: list[int] = []
    for number, step in enumerate(steps * 6):
        if step.startswith("push"):
            call = Call(str(random.integers(3)), priority=0 if step == "push first" else int(random.integers(1, 3)))
            flows[number] = PlanExecution(plan, {"image": images(1)}, call, number)
            queue.push(flows[number].start()[0])
            waiting.append(number)
        elif step == "forget" and waiting:
            queue.forget(flows[waiting.pop(int(random.integers(len(waiting))))])
        elif step == "take":
            batch = [work.execution.number for work in queue.take()]
            assert len(batch) == min(2, len(waiting))
            for taken in batch:
                waiting.remove(taken)
        assert len(queue) == len(waiting)


@pytest.mark.parametrize("goes", ["forgotten", "taken"])
def test_what_has_gone_from_behind_others_does_not_pile_up(goes: str) -> None:
    queue = FairQueue(lambda name: 2)
    late, mid = make_plan(REPOSITORY, ["late"]), ExecutionPlan(("x",), (PlanStep("mid", (("x",),), (("y",),)),), {"y": "y"})
    rows = {"image": images(1), "x": images(1)}
    queue.push(PlanExecution(mid, rows, Call("a", priority=0), 0).start()[0])  # nobody takes it
    for number in range(1, 1000):
        flow = PlanExecution(late, rows, Call("a", priority=2), number)
        queue.push(flow.start()[0])
        if goes == "forgotten":
            queue.forget(flow)
        else:  # with the first of another tenant, for the same segment
            queue.push(PlanExecution(late, rows, Call("b", priority=-1), 1000 + number).start()[0])
            assert [work.execution.call.tenant for work in queue.take()] == ["b", "a"]
    assert len(queue) == 1
    heaps = [*queue._by_tenant.values(), *(heap for heaps in queue._by_group.values() for heap in heaps.values())]
    assert sum(map(len, heaps)) < 200
