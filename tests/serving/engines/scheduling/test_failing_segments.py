"""What becomes of requests whose segments fail: those that depend on them, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from contract.dtypes import Array
from contract.plan import make_plan
from serving.engines.base import Answer, Call
from serving.engines.scheduling.scheduler import Scheduler
from serving.errors import EngineError
from tests.serving.engines.scheduling.held_up import REPOSITORY, Segments, infer, work_with
from tests.serving.nets import LAYERS, TASK_NAMES, images, whole


def fail(rows: Array) -> Array:
    raise EngineError("It broke.")


def test_a_segment_that_fails_takes_only_what_depends_on_it() -> None:
    async def go(scheduler: Scheduler) -> Answer:
        return await infer(scheduler, TASK_NAMES, 2)

    for broken, failed in {
        "tuned_a": {"colour"},  # the other streams go through the suffix all the same
        "suffix": {"probe", "colour", "parity"},
        "head_colour": {"colour"},
        "mid": {"probe"},
        "trunk": set(TASK_NAMES),
    }.items():
        answer = work_with(go, Segments(**{broken: fail}), workers=2)
        assert {name: str(error) for name, error in answer.errors.items()} == dict.fromkeys(failed, "It broke.")
        assert set(answer.outputs) == set(TASK_NAMES) - failed
        for name, values in answer.outputs.items():
            np.testing.assert_allclose(values, whole(name, images(2)), rtol=1e-4, atol=1e-5)


def refuse_seven(rows: Array) -> Array:
    if (rows == 7).any():
        raise ValueError("7")
    return LAYERS["trunk"](rows)


def test_a_request_that_breaks_a_run_breaks_it_for_itself_only() -> None:
    segments = Segments(trunk=refuse_seven)
    plan = make_plan(REPOSITORY, ["late"])

    async def go(scheduler: Scheduler) -> None:
        segments.gate.clear()
        segments.entered.clear()
        first = asyncio.ensure_future(scheduler.infer(plan, {"image": np.zeros((1, 8, 8, 3), np.uint8)}, Call()))
        await asyncio.to_thread(segments.entered.wait)
        calls = [
            scheduler.infer(plan, {"image": np.full((2, 8, 8, 3), value, np.uint8)}, Call(str(value))) for value in (1, 7, 3)
        ]
        others = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
        segments.gate.set()
        answers = await asyncio.gather(first, *others)
        assert [sorted(answer.errors) for answer in answers] == [[], [], ["late"], []]
        assert str(answers[2].errors["late"]) == "Segment 'trunk' failed on 2 rows."

    work_with(go, segments)


def test_a_worker_outlives_whatever_a_segment_raises() -> None:
    def end(rows: Array) -> Array:
        raise SystemExit("a thread's end")

    async def go(scheduler: Scheduler) -> None:
        for _ in range(3):
            assert "late" in (await infer(scheduler, ["late"])).errors
        assert not (await infer(scheduler, ["probe"])).errors

    work_with(go, Segments(branch_late=end))


@pytest.mark.parametrize("wrong", [lambda rows: rows[:0], lambda rows: np.concatenate([rows, rows]), lambda rows: np.float32(1)])
def test_a_worker_outlives_results_of_the_wrong_size(wrong: Callable[[Array], Array]) -> None:
    async def go(scheduler: Scheduler) -> None:
        assert "late" in (await infer(scheduler, ["late"], 2)).errors
        assert not (await infer(scheduler, ["probe"], 2)).errors

    work_with(go, Segments(branch_late=wrong))
