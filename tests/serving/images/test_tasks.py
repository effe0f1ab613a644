"""Which tasks an image goes to, and what is known before anything is decoded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image

from contract.errors import InvalidRequest, UnknownTask
from contract.kinds.kind import Scores
from contract.preprocessing import Preprocessing
from contract.repository import Canary, Repository, TensorSpec
from serving.answers.prediction import Prediction
from serving.engines.in_memory import InMemoryEngine
from serving.errors import DeadlineExceeded, NoImageTask, NotAnImage
from serving.images.tasks import PreparedImages
from serving.questions import CheckRoom
from serving.requests import RequestOptions
from serving.router import Router
from tests.serving.nets import LAYERS, PREPROCESSING, TASK_NAMES, images, make_repository

Result = TypeVar("Result")
OTHERS = {name for name in TASK_NAMES if name != "late"}


def without_preprocessing(*names: str) -> Repository:
    return make_repository(preprocessing=dict.fromkeys(names))


def ask(
    action: Callable[[Router], Awaitable[Result]], repository: Repository, draw: float = 0.0, engine: InMemoryEngine | None = None
) -> Result:
    async def answer() -> Result:
        router = Router(repository, engine or InMemoryEngine(LAYERS), draw=lambda: draw)
        await router.start()
        try:
            return await action(router)
        finally:
            await router.aclose()

    return asyncio.run(answer())  # type: ignore[arg-type]


def predict(repository: Repository, tasks: list[str] | None, draw: float = 0.0, partial: bool = False) -> Prediction:
    return ask(lambda router: router.predict(images(2), tasks, 1, RequestOptions(partial=partial)), repository, draw)


def test_a_task_that_takes_no_images_is_in_nobodys_way() -> None:
    assert predict(without_preprocessing("late"), None).tasks.keys() == OTHERS
    assert predict(make_repository(), None).tasks.keys() == {*TASK_NAMES}
    with pytest.raises(NoImageTask, match="No task takes images"):
        predict(without_preprocessing(*TASK_NAMES), None)


def test_a_task_that_takes_no_images_can_be_left_out_by_name() -> None:
    repository = without_preprocessing("late", "probe")
    answer = predict(repository, ["late", "parity", "cats"], partial=True)
    assert answer.tasks.keys() == {"parity"}
    assert {name: words.split("; ")[0].split(", since")[0] for name, words in answer.errors.items()} == {
        "late": "Task 'late' takes no images",
        "cats": "Unknown task 'cats'",
    }
    for tasks, kind in ((["late", "cats"], InvalidRequest), (["cats", "late"], UnknownTask)):  # nothing is left
        with pytest.raises(kind):
            predict(repository, tasks, partial=True)
    with pytest.raises(InvalidRequest, match="'late' takes no images"):
        predict(repository, ["parity", "late"])


@pytest.mark.parametrize("draw", [0.0, 0.9])
def test_a_canary_that_takes_no_images_is_in_nobodys_way(draw: float) -> None:
    family = make_repository()
    late = family.tasks["late"]
    canary = Canary(replace(late, version="2", preprocessing=None), 0.5)
    repository = replace(family, tasks={**family.tasks, "late": replace(late, canary=canary)})
    assert predict(repository, None, draw).tasks.keys() == (OTHERS if draw < 0.5 else {*TASK_NAMES})


def classified(kind: Scores, values: list[list[float]], caplog: pytest.LogCaptureFixture) -> tuple[list[list[float]], str]:
    """Return the scores of a task that answers `values`, in the order of its classes, and what was logged."""
    late = replace(
        make_repository().tasks["late"], scores=kind, labels=(), outputs=(TensorSpec("late", "FP32", (len(values[0]),)),)
    )
    repository = replace(make_repository(), tasks={"late": late})
    engine = InMemoryEngine({**LAYERS, "branch-late": lambda rows: np.array(values, np.float32)})
    with caplog.at_level("INFO"):
        (tables,) = ask(lambda router: router.predict(images(2), None), repository, engine=engine).tasks.values()
    tables = [found.labels for found in tables]
    assert [[float(item.label) for item in table] for table in tables] == np.argsort(-np.array(values), axis=1).tolist()
    return [[item.score for item in sorted(table, key=lambda item: item.label)] for table in tables], caplog.text


SOFTMAXED = (
    np.exp([[0.5, 0.25, 0.25], [0.1, 0.7, 0.2]]) / np.exp([[0.5, 0.25, 0.25], [0.1, 0.7, 0.2]]).sum(1, keepdims=True)
).tolist()


@pytest.mark.parametrize(
    ("kind", "values", "scores"),
    [
        ("logits", [[0.5, 0.25, 0.25], [0.1, 0.7, 0.2]], SOFTMAXED),
        ("", [[0.5, 0.25, 0.25], [0.1, 0.7, 0.2]], SOFTMAXED),
        ("probabilities", [[0.5, 0.25, 0.25], [0.1, 0.7, 0.2]], [[0.5, 0.25, 0.25], [0.1, 0.7, 0.2]]),
        ("independent", [[0.5, 0.9], [0.1, 0.0]], [[0.5, 0.9], [0.1, 0.0]]),
        ("log_probabilities", [[-0.5, -1e9], [0.0, -2.0]], np.exp([[-0.5, -1e9], [0.0, -2.0]]).tolist()),
        ("value", [[-7.5], [1e9]], [[-7.5], [1e9]]),
        ("logits", [[-7.5], [1e9]], [[-7.5], [1e9]]),
        ("", [[-7.5], [1e9]], [[-7.5], [1e9]]),  # one of one is always 1, and no answer
    ],
)
def test_scores_are_what_the_task_says_that_its_outputs_are(
    kind: Scores, values: list[list[float]], scores: list[list[float]], caplog: pytest.LogCaptureFixture
) -> None:
    found, log = classified(kind, values, caplog)
    np.testing.assert_allclose(found, scores, rtol=1e-6)
    assert ("having been exported by an earlier version: late. Their scores are a softmax" in log) == (
        not kind and len(values[0]) > 1
    )


async def never(ways: Sequence[Preprocessing], check_room: CheckRoom) -> PreparedImages:
    raise AssertionError


async def endless(ways: Sequence[Preprocessing], check_room: CheckRoom) -> PreparedImages:
    await asyncio.Event().wait()
    raise AssertionError


async def refused(ways: Sequence[Preprocessing], check_room: CheckRoom) -> PreparedImages:
    raise NotAnImage("No image.")


@pytest.mark.parametrize("tasks", [["cats"], [], ["late"]])
def test_tasks_are_checked_before_an_image_is_looked_at(tasks: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        ask(lambda router: router.predict_prepared(never, tasks, 1, RequestOptions()), without_preprocessing("late"))


def test_images_that_wait_too_long_or_are_none_count_as_failed_requests() -> None:
    async def work(router: Router) -> Mapping[str, int]:
        with pytest.raises(DeadlineExceeded):
            await router.predict_prepared(endless, ["late"], 1, RequestOptions(time.monotonic() + 0.01))
        with pytest.raises(NotAnImage):
            await router.predict_prepared(refused, ["late"], 1, RequestOptions())
        await router.predict(images(3), ["late"])
        (found,) = router.all_statistics().values()
        assert (found.rows, found.successes, found.pending) == (3, 1, 0)
        return found.failures_by_reason

    assert ask(work, make_repository()) == {"DeadlineExceeded": 1, "NotAnImage": 1}


def test_each_way_is_asked_for_once_and_room_is_asked_of_the_engine() -> None:
    zoomed = Preprocessing(8, 8, crop_fraction=0.5)
    asked: list[Preprocessing] = []

    async def prepare(ways: Sequence[Preprocessing], check_room: CheckRoom) -> PreparedImages:
        asked.extend(ways)
        check_room(10_000)  # more than the queue may hold, but nothing waits
        return PreparedImages({way: images(1) for way in ways}, [(8, 8)])

    repository = make_repository(preprocessing={"late": zoomed})
    ask(lambda router: router.predict_prepared(prepare, ["probe", "late", "parity"], 1, RequestOptions()), repository)
    assert asked == [PREPROCESSING, zoomed]


def test_a_picture_in_this_process_is_limited_too() -> None:
    with pytest.raises(NotAnImage, match=r"1000000 x 1 pixels, which would be resized to 8000000 x 8, .* crop it first"):
        ask(lambda router: router.predict([Image.new("RGB", (1_000_000, 1))], ["late"]), make_repository())
