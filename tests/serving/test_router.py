"""The router on the in-memory engine: what runs, what is refused, and what comes back."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from contract.errors import InvalidRequest, NoTask, UnknownTask
from contract.preprocessing import Preprocessing
from contract.repository import ALL_TASKS, Repository, Task, TensorSpec
from serving.answers.classes import best, classification_strings, softmax
from serving.engines.in_memory import InMemoryEngine
from serving.errors import NotAnImage, NotReady, TaskFailed, TooManyNames, UnknownModel
from serving.requests import InferRequest, RequestedOutput, RequestOptions
from serving.router import Router
from serving.statistics import ModelStatistics
from tests.serving.nets import CHAINS, LAYERS, MAX_ROWS, PREPROCESSING, TASK_NAMES, images, make_repository, whole

Result = TypeVar("Result")


def ask(
    action: Callable[[Router], Awaitable[Result]], repository: Repository | None = None, engine: InMemoryEngine | None = None
) -> Result:
    async def answer() -> Result:
        router = Router(repository or make_repository(), engine or InMemoryEngine(LAYERS))
        await router.start()
        return await action(router)

    return asyncio.run(answer())  # type: ignore[arg-type]


def request(model: str, rows: int = 2, outputs: tuple[RequestedOutput, ...] = (), **changes: object) -> InferRequest:
    return InferRequest(**{"model": model, "inputs": {"image": images(rows)}, "outputs": outputs, **changes})  # type: ignore[arg-type]


@settings(max_examples=20)
@given(st.lists(st.sampled_from(TASK_NAMES), min_size=1, unique=True), st.integers(1, 15))
def test_the_outputs_asked_for_choose_what_runs_and_rows_are_split_at_the_limit(tasks: list[str], rows: int) -> None:
    engine = InMemoryEngine(LAYERS, max_batch_rows=MAX_ROWS)
    outputs = tuple(RequestedOutput(task) for task in tasks)
    response = ask(lambda router: router.infer(request(ALL_TASKS, rows, outputs)), engine=engine)
    assert list(response.outputs) == tasks
    for task in tasks:
        np.testing.assert_allclose(response.outputs[task], whole(task, images(rows)), rtol=1e-4, atol=1e-5)
    # The suffix takes the rows of each of its streams; nothing takes more than its limit.
    assert {run.segment for run in engine.runs} == {segment for task in tasks for segment in CHAINS[task]}
    assert max(run.rows for run in engine.runs) <= MAX_ROWS
    done = Counter({name: sum(run.rows for run in engine.runs if run.segment == name) for name in LAYERS})
    streams = Counter(segment for task in tasks for segment in CHAINS[task])
    assert all(done[name] == rows * (streams[name] if name == "suffix" else 1) for name in streams)
    assert sum(run.rows for run in response.runs) == sum(done.values())


def test_no_outputs_means_all_of_them() -> None:
    assert sorted(ask(lambda router: router.infer(request(ALL_TASKS))).outputs) == sorted(TASK_NAMES)
    assert list(ask(lambda router: router.infer(request("probe"))).outputs) == ["probe"]


def test_a_segment_is_a_model_of_its_own() -> None:
    engine = InMemoryEngine(LAYERS)
    response = ask(lambda router: router.infer(request("trunk", inputs={"input": images(2)})), engine=engine)
    np.testing.assert_array_equal(response.outputs["output"], LAYERS["trunk"](images(2)))
    assert [run.segment for run in engine.runs] == ["trunk"]


def test_identity_and_classification() -> None:
    response = ask(
        lambda router: router.infer(request("probe", 1, (RequestedOutput("probe", classes=9),), id="seven", version="1"))
    )
    assert (response.model, response.version, response.id) == ("probe", "1", "seven")
    (row,) = response.outputs["probe"]
    values, indices, labels = zip(*(text.decode().split(":") for text in row), strict=True)
    logits = whole("probe", images(1))[0]
    assert [int(index) for index in indices] == list(np.argsort(-logits))
    assert list(labels) == [("cat", "dog", "emu")[int(index)] for index in indices]
    np.testing.assert_allclose([float(value) for value in values], sorted(logits, reverse=True), atol=1e-6)


def test_a_task_without_labels_is_classified_by_number() -> None:
    strings = ask(lambda router: router.infer(request("parity", 1, (RequestedOutput("parity", 1),)))).outputs["parity"]
    assert strings.shape == (1, 1)
    assert strings[0, 0].count(b":") == 1


TAKES = r"input 'image' \(UINT8, shape \[-1, 8, 8, 3\], first the rows\)"
REFUSALS: dict[str, tuple[InferRequest, type[Exception], str]] = {
    "model": (request("cats"), UnknownModel, "Unknown model 'cats'; known are: all_tasks, colour, late, parity, probe"),
    "version": (request("probe", version="2"), UnknownModel, "Unknown version '2' of model 'probe'; known are: 1"),
    "task": (request(ALL_TASKS, outputs=(RequestedOutput("cats"),)), UnknownTask, "Unknown task 'cats'; known are: colour, late"),
    "output": (request("probe", outputs=(RequestedOutput("x"),)), InvalidRequest, "'probe' has no output 'x'; it gives 'probe'"),
    "twice": (request("probe", outputs=(RequestedOutput("probe"),) * 2), InvalidRequest, "'probe' is requested twice"),
    "classes": (request("probe", outputs=(RequestedOutput("probe", -1),)), InvalidRequest, "asks for -1 classes"),
    "name": (request("probe", inputs={"x": images(1)}), InvalidRequest, f"has no input 'x'; it takes {TAKES}"),
    "none": (request("probe", inputs={}), InvalidRequest, f"'probe' needs {TAKES}, which is missing"),
    "dtype": (request("probe", inputs={"image": images(1) / 1}), InvalidRequest, f"The input is FP64, but model 'probe' takes {TAKES}"),
    "shape": (request("probe", inputs={"image": images(1)[0]}), InvalidRequest, rf"has shape \[8, 8, 3\], but model 'probe' takes {TAKES}"),
    "scalar": (request("probe", inputs={"image": images(1)[0, 0, 0, 0:1].reshape(())}), InvalidRequest, r"has shape \[\]"),
    "rows": (request("probe", inputs={"image": images(0)}), InvalidRequest, "no rows; model 'probe' takes .* with at least one"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_requests_get_one_sentence_and_run_nothing(case: str) -> None:
    engine = InMemoryEngine(LAYERS)
    bad, kind, words = REFUSALS[case]
    with pytest.raises(kind, match=words) as caught:
        ask(lambda router: router.infer(bad), engine=engine)
    assert str(caught.value).count("\n") == 0
    assert engine.runs == []


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("model", ["late", ALL_TASKS])
def test_more_names_than_there_are_cost_one_sentence_whatever_their_number(model: str, partial: bool) -> None:
    outputs = (RequestedOutput("late"), *(RequestedOutput(f"x{number}") for number in range(50_000)))
    terms = {"partial_results": partial}

    async def work(router: Router) -> int:
        await router.infer(request(model, outputs=outputs[:17], parameters={"partial_results": True}))  # some have gone: fine
        tracemalloc.start()
        try:
            with pytest.raises(TooManyNames, match=rf"names 50001 outputs, and model '{model}' has [14]; name each once\.$"):
                await router.infer(request(model, outputs=outputs, parameters=terms))
            with pytest.raises(TooManyNames, match=r"names 50001 tasks, and there are 4; name each once\.$"):
                await router.predict(images(1), [output.name for output in outputs], options=RequestOptions(partial=partial))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert ask(work) < 5e6  # the list of names itself, which this test makes, has 4 MB


def test_what_a_client_calls_things_is_shortened_in_sentences_and_an_output_named_twice_is_refused_with_partial_results() -> None:
    endless = "x" * 10_000_000
    outputs = (RequestedOutput("late"), RequestedOutput(endless))
    terms = {"partial_results": True}
    bad = [
        request(endless),
        request("late", version=endless),
        request("late", inputs={endless: images(1)}),
        request("late", outputs=outputs),
        request(ALL_TASKS, outputs=outputs),
        request("late", outputs=(*outputs, outputs[1]), parameters=terms),
        request("late", parameters={"timeout": endless}),
        request("late", parameters={"partial_results": [endless] * 100}),
    ]

    async def work(router: Router) -> None:
        for one in bad:
            with pytest.raises((InvalidRequest, UnknownModel), match=r"x\.\.\.x|'partial_results'") as caught:
                await router.infer(one)
            assert len(str(caught.value)) < 500
        (sentence,) = (await router.infer(request("late", outputs=outputs, parameters=terms))).errors.values()
        assert len(sentence) < 400

    ask(work)


def test_a_thousand_names_are_not_all_listed() -> None:
    assert str(UnknownModel("x", [f"m{number:04}" for number in range(1000)])).endswith(", m0014, m0015 and 984 more.")
    assert str(UnknownTask("x", [])).endswith("known are: none.")


def test_tasks_with_inputs_of_their_own_are_not_offered_together() -> None:
    family = make_repository()
    other = Task("other", (), (TensorSpec("image", "FP32", (4,)),), (TensorSpec("other", "FP32", (4,)),), 8)
    router = Router(Repository(family.path, family.segments, {**family.tasks, "other": other}), InMemoryEngine({}))
    assert ALL_TASKS not in router.catalog.models


def test_nothing_is_answered_before_start_nor_while_draining() -> None:
    async def work() -> None:
        router = Router(make_repository(), InMemoryEngine(LAYERS))
        for _ in range(2):
            assert not router.ready
            with pytest.raises(NotReady):
                await router.infer(request("probe"))
            with pytest.raises(NotReady):
                await router.predict(images(1), ["probe"])
            await router.start()
            assert router.ready
            router.drain()
        await router.aclose()

    asyncio.run(work())


def test_statistics_count_successes_and_failures() -> None:
    async def work(router: Router) -> ModelStatistics:
        await router.infer(request("probe", 3))
        await router.infer(request("probe", 4))
        with pytest.raises(InvalidRequest):
            await router.infer(request("probe", 0))
        return router.statistics(router.catalog.find("probe"))

    done = ask(work)
    assert (done.successes, done.failures, done.rows) == (2, 1, 7)
    assert done.success_ns > 0 < done.failure_ns
    assert done.last_request_ms > 0


def test_predict_shares_the_trunk_among_tasks_with_equal_preprocessing() -> None:
    engine = InMemoryEngine(LAYERS)
    pictures = list(images(2))
    prediction = ask(lambda router: router.predict(pictures, TASK_NAMES, top_k=2), engine=engine)
    assert Counter(run.segment for run in engine.runs)["trunk"] == 1
    assert list(prediction.tasks) == list(TASK_NAMES)
    for task in TASK_NAMES:
        scores = softmax(whole(task, images(2)))
        for row, found in zip(scores, prediction.tasks[task], strict=True):
            np.testing.assert_allclose([item.score for item in found.labels], sorted(row, reverse=True)[:2], atol=1e-6)
    assert prediction.tasks["parity"][0].labels[0].label in ("0", "1")
    assert prediction.tasks["colour"][0].labels[0].label in ("red", "green", "blue")


def test_predict_applies_each_tasks_own_preprocessing() -> None:
    zoomed = Preprocessing(height=8, width=8, crop_fraction=0.5)
    repository = make_repository(preprocessing={"late": zoomed})
    engine = InMemoryEngine(LAYERS)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    prediction = ask(lambda router: router.predict([picture], ["late", "probe"], top_k=4), repository, engine)
    assert Counter(run.segment for run in engine.runs)["trunk"] == 2  # two different inputs
    for task, how in (("late", zoomed), ("probe", PREPROCESSING)):
        expected = softmax(whole(task, how(picture)[None]))[0]
        np.testing.assert_allclose(
            [item.score for item in prediction.tasks[task][0].labels], sorted(expected, reverse=True), atol=1e-6
        )


def test_predict_refuses_what_it_cannot_do() -> None:
    tensors_only = make_repository(preprocessing={"late": None})
    for tasks, pictures, top_k, kind, words in (
        ([], images(1), 1, NoTask, "name at least one of"),
        (["cats"], images(1), 1, UnknownTask, "Unknown task 'cats'"),
        (["probe"], images(1), 0, InvalidRequest, "top_k is 0"),
        (["probe"], images(0), 1, InvalidRequest, "No image was given"),
        (["probe"], images(1)[:, :, :, :2], 1, NotAnImage, r"not uint8 \(8, 8, 2\)"),
        (["probe"], images(1) / 255, 1, NotAnImage, "not float64"),
        (
            ["probe", "late"],
            images(1),
            1,
            InvalidRequest,
            "'late' takes no images, since nobody has said how one becomes its input",
        ),
    ):
        with pytest.raises(kind, match=words):
            ask(lambda router, a=(pictures, tasks, top_k): router.predict(*a), tensors_only)


def test_where_a_failure_came_from_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    def fail(x: object) -> np.ndarray:
        raise ValueError("of some inputs")

    async def work(router: Router) -> None:
        for _ in range(3):
            with pytest.raises(TaskFailed):
                await router.infer(request("late"))

    ask(work, engine=InMemoryEngine({**LAYERS, CHAINS["late"][-1]: fail}))
    assert [bool(record.exc_info) for record in caplog.records if "failed" in record.message] == [True, False, False]


def test_an_engine_that_fails_is_reported_and_counted() -> None:
    async def work(router: Router) -> int:
        with pytest.raises(TaskFailed, match="Task 'probe' could not be computed: There is no function for segment 'trunk'"):
            await router.predict(images(1), ["probe", "late"])
        return router.statistics(router.catalog.find("late")).failures

    assert ask(work, engine=InMemoryEngine({})) == 1


@settings(max_examples=50)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_softmax_is_a_distribution_at_any_size_of_logits(logits: np.ndarray) -> None:
    scores = softmax(logits)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores >= 0).all()


@settings(max_examples=50)
@given(hnp.arrays(np.float32, (3, 5), elements=st.integers(-3, 3).map(float)), st.integers(1, 9))
def test_the_best_are_in_order_and_ties_go_to_the_lower_index(values: np.ndarray, k: int) -> None:
    for row, chosen in zip(values, best(values, k), strict=True):
        assert list(chosen) == sorted(range(5), key=lambda index: (-row[index], index))[:k]


def test_classification_strings_are_tritons() -> None:
    strings = classification_strings(np.array([[0.5, 2.0]], np.float32), ["no", "yes"], 2)
    assert strings.tolist() == [[b"2.000000:1:yes", b"0.500000:0:no"]]
