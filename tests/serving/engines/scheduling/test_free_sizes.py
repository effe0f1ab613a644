"""What runs together where sizes are free: what has equal shapes, as many rows as their elements allow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.dtypes import Array
from contract.plan import ExecutionPlan, make_plan
from contract.repository import Repository, TensorSpec
from contract.repository.free_sizes import FreeSize
from contract.volume import joint_volume, volume_of
from serving.engines.base import Answer, Call, SegmentRun
from serving.engines.free_rows import FreeRows, elements_of_row
from serving.engines.scheduling.batches import SegmentTimes
from serving.engines.scheduling.fair_queue import FairQueue
from serving.engines.scheduling.plan_execution import Group, PlanExecution, rows_at_once
from serving.engines.scheduling.scheduler import Scheduler
from serving.errors import QueueFull
from tests.serving.free_nets import IDS, LENGTH, MASK, MAX_ROWS, TEXT, TWINS, WIDTH, make_segment, make_task, text
from tests.serving.nets import images, make_repository


def repository(names: Sequence[str]) -> Repository:
    tasks = {name: make_task(name) for name in names}
    segments = {step.segment for task in tasks.values() for step in task.steps}
    return Repository(Path("nowhere"), {name: make_segment(name) for name in segments}, tasks)


TEXTS, PAIRS = repository(TEXT), repository(TWINS)


def run_segment(name: str, inputs: Sequence[Array]) -> Sequence[Array]:
    """Give what says which rows of which length went in."""
    rows = len(inputs[0])
    if name == "trunk":
        return [inputs[0][..., None] * np.ones(WIDTH)]
    if name == "head-tag":
        return [inputs[0][..., :4]]
    if name == "head-pair":
        return [inputs[0] + inputs[1]]
    return [inputs[0].reshape(rows, -1).sum(axis=1, keepdims=True)]


def flow(plan: ExecutionPlan, inputs: Mapping[str, Array], number: int) -> PlanExecution:
    return PlanExecution(plan, inputs, Call("a"), number)


def test_steps_are_taken_together_where_their_shapes_are_equal() -> None:
    plan = make_plan(TEXTS, ["tag"])
    queue = FairQueue(lambda group: 4)
    for number, length in enumerate((5, 7, 5, 7, 5)):
        queue.push(flow(plan, text(1, length), number).start()[0])
    assert queue.runs(9) == 2
    taken = [queue.take() for _ in range(3)]
    assert [[step.execution.number for step in batch] for batch in taken] == [[0, 2, 4], [1, 3], []]
    assert len(queue) == 0


def test_streams_of_equal_shape_run_together_and_others_apart() -> None:
    plan = make_plan(PAIRS, ["pair"])
    assert len(plan.steps) == 2
    alike = flow(plan, {"query": text(2, 4)[IDS.name], "document": text(2, 4)[IDS.name]}, 0)
    (both,) = alike.start()
    assert (both.streams, both.rows) == ((0, 1), 4)
    apart = flow(plan, {"query": text(2, 4)[IDS.name], "document": text(2, 6)[IDS.name]}, 1)
    one, other = apart.start()
    assert (one.streams, other.streams) == ((0,), (1,))
    queue = FairQueue(lambda group: 8)
    for step in (one, other):
        queue.push(step)
    queue.forget(apart)
    assert len(queue) == 0
    run = SegmentRun("tower", 2, 0.0)
    assert apart.finish(other, run_segment("tower", other.inputs()), run) == []
    (head,) = apart.finish(one, run_segment("tower", one.inputs()), run)
    assert apart.finish(head, run_segment("head-pair", head.inputs()), run) == []
    assert apart.done
    sums = text(2, 4)[IDS.name].sum(axis=1) + text(2, 6)[IDS.name].sum(axis=1)
    np.testing.assert_array_equal(apart.answer().outputs["pair"][:, 0], sums)


def test_of_fixed_shapes_the_plan_knows_of_no_volume() -> None:
    plan = make_plan(make_repository(), ["probe"])
    assert plan.volume is None
    assert not any(step.free for step in plan.steps)
    (step,) = PlanExecution(plan, {"image": images(3)}, Call(), 0).start()
    assert (step.group, step.work) == ("trunk", 3)


def test_the_volume_of_a_row_is_that_of_its_largest_input() -> None:
    task = make_task("pair")
    volume = volume_of(task.inputs, task.sizes)
    assert volume is not None
    pair = {"query": text(2, 30)[IDS.name], "document": text(2, 10)[IDS.name]}
    assert (volume.of(pair), volume.reference) == (30, 12)
    assert volume.in_reference_rows(pair, 2) == 5
    assert volume.in_reference_rows({name: values[:, :1] for name, values in pair.items()}, 2) == 1
    assert [volume.as_many_as(rows, pair) for rows in (0, 1, 5, 10)] == [0, 1, 2, 4]
    texts = volume_of(make_task("tag").inputs, LENGTH)
    joint = joint_volume([volume, None, texts])
    assert joint is not None
    assert (joint.reference, joint.of({**pair, **text(2, 40)})) == (16, 40)
    assert joint_volume([None]) is None
    unknown = volume_of((TensorSpec("x", "FP32", (-1, 3)),), {})
    assert unknown is not None
    assert (unknown.of({"x": np.zeros((2, 9, 3))}), unknown.in_reference_rows({"x": np.zeros((2, 9, 3))}, 2)) == (9, 2)


def test_longer_rows_are_fewer_and_never_none() -> None:
    trunk = make_segment("trunk")
    assert elements_of_row(trunk, ((10,), (10,))) == 10 + 10 + 10 * WIDTH
    usual = FreeRows(trunk, rows=2, most_rows=MAX_ROWS)
    lengths = (1, 8, 16, 31, 32, 64)
    assert [usual.limit(((length,), (length,))) for length in lengths] == [MAX_ROWS, 4, 2, 1, 1, 1]
    told = FreeRows(trunk, rows=2, most_rows=MAX_ROWS, max_elements=640)
    assert [told.limit(((length,), (length,))) for length in lengths] == [6, 6, 4, 2, 2, 1]


def test_outputs_that_no_input_tells_grow_as_the_inputs_do() -> None:
    trunk = make_segment("trunk")
    halves = TensorSpec("output", "FP32", (-1, 6), axes=("half", ""))
    segment = replace(trunk, outputs=(halves,), sizes={**LENGTH, "half": FreeSize(8)})
    assert elements_of_row(segment, ((16,), (16,))) == 32 + 8 * 6
    assert elements_of_row(segment, ((32,), (32,))) == 64 + 16 * 6


def test_a_request_goes_in_chunks_that_its_elements_allow() -> None:
    plan, pair = make_plan(TEXTS, ["tag"]), make_plan(PAIRS, ["pair"])
    seen: list[Group] = []

    def limit(group: Group) -> int:
        seen.append(group)
        return 4

    assert rows_at_once(plan, text(9, 20), 6, limit) == 4
    assert seen == [("trunk", ((20,), (20,)))]
    assert rows_at_once(plan, text(9, 20), 3, limit) == 3
    texts = {"query": text(9, 3)[IDS.name], "document": text(9, 5)[IDS.name]}
    assert rows_at_once(pair, texts, 6, limit) == 2  # two streams


def test_what_takes_a_vector_of_a_text_takes_as_long_for_any_length() -> None:
    plan = make_plan(PAIRS, ["pair"])
    assert [step.free for step in plan.steps] == [True, False]
    times = SegmentTimes()
    times.note("tower", 10, 0.01)
    times.note("head-pair", 1, 0.5)
    pair = {"query": text(2, 30)[IDS.name], "document": text(2, 10)[IDS.name]}
    assert times.of(flow(plan, pair, 0)) == pytest.approx(2 * (2 * 30 * 0.001 + 0.5))


def test_what_is_learnt_of_one_length_holds_for_others() -> None:
    plan = make_plan(TEXTS, ["tag"])
    times = SegmentTimes()
    for segment in ("trunk", "head-tag"):
        times.note(segment, flow(plan, text(2, 10), 0).start()[0].work, 0.02)
    assert times.of(flow(plan, text(3, 40), 1)) == pytest.approx(2 * 0.001 * 3 * 40)


def ask_all(requests: Sequence[tuple[str, int, int]], max_rows: int, workers: int) -> tuple[list[Answer], list[tuple[str, int]]]:
    runs: list[tuple[str, int]] = []

    def run(name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        runs.append((name, len(inputs[0])))
        return run_segment(name, inputs)

    async def answered() -> list[Answer]:
        scheduler = Scheduler(run, lambda group: max_rows, workers=workers)
        scheduler.start()
        try:
            plans = {task: make_plan(TEXTS, [task]) for task in TEXT}
            asked = [
                scheduler.infer(plans[task], text(rows, length, number), Call(task, rows_per_run=MAX_ROWS))
                for number, (task, rows, length) in enumerate(requests)
            ]
            return await asyncio.gather(*asked)
        finally:
            await scheduler.aclose()

    return asyncio.run(answered()), runs


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from(TEXT), st.integers(1, 9), st.integers(1, 6)), min_size=1, max_size=20),
    st.integers(1, 8),
    st.integers(1, 3),
)
def test_any_mix_of_lengths_gives_each_its_own_answer_in_runs_within_the_limit(
    requests: list[tuple[str, int, int]], max_rows: int, workers: int
) -> None:
    answers, runs = ask_all(requests, max_rows, workers)
    assert all(rows <= max_rows for _, rows in runs)
    for number, ((task, rows, length), answer) in enumerate(zip(requests, answers, strict=True)):
        assert not answer.errors
        assert answer.parts == -(-rows // min(max_rows, MAX_ROWS))
        state = text(rows, length, number)[IDS.name][..., None] * np.ones(WIDTH)
        (wanted,) = run_segment(f"head-{task}", [state, text(rows, length)[MASK.name]])
        np.testing.assert_array_equal(answer.outputs[task], wanted)


def test_what_waits_counts_by_its_real_size() -> None:
    begun, release = threading.Event(), threading.Event()

    def slow(name: str, inputs: Sequence[Array]) -> Sequence[Array]:
        begun.set()
        release.wait(10)
        return run_segment(name, inputs)

    async def asked() -> None:
        scheduler = Scheduler(slow, lambda group: 64, max_queue_rows=8)
        scheduler.start()
        plan = make_plan(TEXTS, ["tag"])
        first = asyncio.ensure_future(scheduler.infer(plan, text(1, 16), Call("a")))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        second = asyncio.ensure_future(scheduler.infer(plan, text(1, 48), Call("a")))
        await asyncio.sleep(0)
        assert scheduler.queued_rows() == {"a": 3}
        with pytest.raises(QueueFull):
            await scheduler.infer(plan, text(1, 64), Call("a"))
        release.set()
        await asyncio.gather(first, second)
        await scheduler.aclose()

    asyncio.run(asked())
