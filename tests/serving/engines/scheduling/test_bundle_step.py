"""Steps of a plan that are put together, and whose a run of them was."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.dtypes import Array
from contract.plan import ExecutionPlan, PlanStep
from serving.engines.base import Call, SegmentRun
from serving.engines.scheduling.batches import BatchRunner
from serving.engines.scheduling.bundle_step import Bundle, BundleStep, Member, Part, shared_out, with_bundles
from serving.engines.scheduling.plan_execution import PlanExecution
from serving.engines.scheduling.scheduler import Scheduler
from serving.engines.scheduling.thread_allocation import halving
from serving.engines.statistics import RunStatistics
from serving.errors import SegmentClosed

TAP = ("tap",)


def plan_for(*heads: str, tap: str = "tap") -> ExecutionPlan:
    steps = (PlanStep("trunk", (("image",),), ((tap,),)), *(PlanStep(head, ((tap,),), ((f"y-{head}",),)) for head in heads))
    return ExecutionPlan(("image",), steps, {f"task-{head}": f"y-{head}" for head in heads})


def bundle_of(*heads: str, size: int = 1000) -> Bundle:
    return Bundle("bundle-" + "".join(heads), TAP, tuple(Member(head, 1, size, 4 * size) for head in heads))


def test_a_bundle_takes_the_place_of_its_steps_and_leaves_what_was_not_asked_for() -> None:
    found = with_bundles(plan_for("a", "x", "c"), [bundle_of("a", "b", "c")])
    assert [step.segment for step in found.steps] == ["trunk", "bundle-abc", "x"]
    step = found.steps[1]
    assert isinstance(step, BundleStep)
    assert step.outputs == (("y-a", "", "y-c"),)
    assert step.parts == (Part("a", 0, 1, 1000), Part("c", 2, 3, 1000))
    assert found.outputs == plan_for("a", "x", "c").outputs
    assert plan_for("a", "x", "c").is_simple
    assert not found.is_simple, "lockstep would count its runs as the bundle's"


def test_what_takes_other_tensors_stays() -> None:
    plan = plan_for("a", "b", tap="another")
    assert with_bundles(plan, [bundle_of("a", "b")]).steps == plan.steps


@pytest.mark.parametrize("mark", ["coupled", "free"])
def test_coupled_steps_and_those_of_free_sizes_stay(mark: str) -> None:
    step = PlanStep("b", (TAP,), (("y-b",),), **{mark: True})
    plan = ExecutionPlan(("tap",), (PlanStep("a", (TAP,), (("y-a",),)), step), {})
    assert [one.segment for one in with_bundles(plan, [bundle_of("a", "b")]).steps] == ["bundle-ab", "b"]


def test_three_heads_of_a_thousand_do_not_pay_for_all() -> None:
    heads = [f"h{number}" for number in range(64)]
    probes = bundle_of(*heads, size=20_480)  # 2,048 features, 10 classes
    assert not probes.pays(heads[:1], rows=1)
    assert not probes.pays(heads[:3], rows=1)
    assert probes.pays(heads[:32], rows=1)
    assert not probes.pays(heads[:32], rows=64), "arithmetic, which is in vain, counts by the row"
    assert probes.pays(heads, rows=64)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 9)), min_size=1), st.floats(1e-6, 10))
def test_the_seconds_of_a_run_are_shared_out_whole(work: list[tuple[int, int]], seconds: float) -> None:
    parts = [(Part(f"s{number}", number, number + 1, macs), rows) for number, (macs, rows) in enumerate(work)]
    shares = shared_out(SegmentRun("bundle", 9, seconds, 9, 0.5, 7), parts)
    assert sum(share.seconds for share in shares) == pytest.approx(seconds)
    assert [(share.segment, share.rows) for share in shares] == [(part.segment, rows) for part, rows in parts]
    heaviest = max(range(len(work)), key=lambda place: max(1, work[place][0]) * work[place][1])
    assert shares[heaviest].seconds == max(share.seconds for share in shares)


def test_requests_that_ask_one_bundle_for_different_heads_are_one_run() -> None:
    bundle = bundle_of("a", "b", "c")
    ran: list[tuple[str, int]] = []
    told: list[tuple[str, int, int]] = []

    def run_segment(name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        ran.append((name, len(inputs[0])))
        return [inputs[0] + place for place in range(3)]

    runner = BatchRunner(run_segment, lambda group: 64, lambda run, waits: told.append((run.segment, run.rows, len(waits))))
    executions = []
    for number, (heads, rows) in enumerate([("ab", 2), ("bc", 3)]):
        plan = with_bundles(plan_for(*heads), [bundle])
        plan = ExecutionPlan(TAP, plan.steps[1:], plan.outputs)
        executions.append(PlanExecution(plan, {"tap": np.full((rows, 1), 10.0 * number)}, Call(), number))
    steps = [step for execution in executions for step in execution.start()]
    for step, results, run in runner.run(steps):
        assert isinstance(results, list)
        step.execution.finish(step, results, run)

    assert ran == [("bundle-abc", 5)]
    assert sorted(told) == [("a", 2, 1), ("b", 5, 2), ("c", 3, 1)]
    first, second = (execution.answer() for execution in executions)
    assert {name: values.tolist() for name, values in first.outputs.items()} == {"task-a": [[0.0]] * 2, "task-b": [[1.0]] * 2}
    assert {name: values.tolist() for name, values in second.outputs.items()} == {"task-b": [[11.0]] * 3, "task-c": [[12.0]] * 3}
    assert [(run.segment, run.rows, run.batch_rows) for run in second.runs] == [("b", 3, 5), ("c", 3, 5)]


def test_where_a_request_is_run_anew_nothing_is_counted_of_what_a_bundle_fell_apart_into() -> None:
    def run_segment(name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        if name != "a":
            raise SegmentClosed(name)
        return inputs

    told: list[str] = []
    runner = BatchRunner(run_segment, lambda group: 64, lambda run, waits: told.append(run.segment))
    plan = with_bundles(plan_for("a", "b"), [bundle_of("a", "b")])
    execution = PlanExecution(ExecutionPlan(TAP, plan.steps[1:], plan.outputs), {"tap": np.zeros((1, 1))}, Call(), 0)
    ((_, outcome, _),) = runner.run(execution.start())
    assert isinstance(outcome, SegmentClosed)
    assert not told


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(1, 9), st.floats(1e-6, 10), st.lists(st.floats(0, 1), min_size=1, max_size=3)), max_size=5),
)
def test_runs_that_are_counted_together_count_as_each_by_itself(
    macs: list[int], runs: list[tuple[int, float, list[float]]]
) -> None:
    """A step of one output for each segment; dropping one forgets what it has done together with others."""
    parts = tuple(Part(f"s{place}", place, place + 1, work) for place, work in enumerate(macs))
    step = BundleStep("bundle", (TAP,), (tuple("y" * len(parts)),), parts=parts)
    together, apart = RunStatistics([]), RunStatistics([])
    for rows, seconds, waits in runs:
        run = SegmentRun("bundle", rows, seconds, rows, 0.0, 7)
        together.add_together(step.shares, run, waits)
        for one in shared_out(run, [(part, rows) for part in parts]):
            apart.add(one, waits)
    found, expected = together.totals(), apart.totals()
    assert found.keys() == expected.keys()
    for name, one in found.items():
        other = expected[name]
        assert (one.runs, one.rows, one.compute.counts, one.queue.counts) == (
            other.runs,
            other.rows,
            other.compute.counts,
            other.queue.counts,
        )
        assert one.seconds == pytest.approx(other.seconds)
        assert one.requests.total == pytest.approx(other.requests.total)
    together.drop(["s0"])
    assert "s0" not in together.totals()


def test_bundles_run_side_by_side_however_brief_they_are() -> None:
    """Each run waits until the other has begun, too: with all threads for each, they would wait in vain."""
    both = threading.Barrier(2)
    learn = threading.Event()

    def run_segment(name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        if learn.is_set():
            both.wait(20)
        return [*inputs, *inputs]

    bundled = with_bundles(plan_for("a", "b", "c", "d"), [bundle_of("a", "b"), bundle_of("c", "d")])
    plan = ExecutionPlan(TAP, bundled.steps[1:], bundled.outputs)

    async def ask() -> None:
        scheduler = Scheduler(run_segment, lambda group: 64, allocation=halving(2), is_open=lambda name: False)
        scheduler.start()
        try:
            for _ in range(3):
                await scheduler.infer(plan, {"tap": np.zeros((1, 1))}, Call())
            learn.set()
            answer = await scheduler.infer(plan, {"tap": np.zeros((1, 1))}, Call())
            assert not answer.errors
        finally:
            await scheduler.aclose()

    asyncio.run(ask())
    assert not both.broken
