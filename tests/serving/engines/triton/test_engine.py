"""The Triton engine's requests, on a stand-in (stand_in.py); tests/serving/local_triton/test_triton.py has it on a real Triton."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from contract.plan import make_plan
from contract.repository import ALL_TASKS, Repository
from espalier.commands.serve import serve
from serving.engines.base import Answer, Call
from serving.engines.triton.engine import TritonEngine
from serving.engines.triton.errors import TritonBusy
from serving.errors import DeadlineExceeded, NotReady, QueueFull, TaskFailed, TooManyRows
from serving.requests import InferRequest, RequestedOutput
from serving.router import Router
from tests.serving.engines.triton.engine_on_stand_in import QUICK, ask, check, eventually, routed, use
from tests.serving.free_nets import REFERENCE, text, whole, write_free
from tests.serving.nets import CHAINS, LAYERS, MAX_ROWS, TASK_NAMES, images
from tests.serving.stand_in import Refusal, StandIn

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("tasks", "model"), [(["late"], "late"), (["probe", "late"], ALL_TASKS), (list(TASK_NAMES), ALL_TASKS)], ids=str
)
def test_a_request_is_one_request_for_the_outputs_that_were_asked_for(
    triton: StandIn, repository: Repository, tasks: list[str], model: str
) -> None:
    async def work(engine: TritonEngine) -> None:
        answer = await ask(engine, repository, *tasks, rows=3)
        check(answer, *tasks, rows=3)
        steps = {segment for task in tasks for segment in CHAINS[task]}
        assert {run.segment for run in answer.runs} == steps
        assert {run.segment: run.rows for run in answer.runs}["trunk"] == 3
        assert triton.requests == [(model, tuple(tasks), 3)]
        assert triton.runs().keys() == steps
        assert triton.runs()["trunk"] == 1
        await eventually(lambda: {name for name, done in engine.statistics().items() if done.rows} == steps)
        assert engine.statistics()["trunk"].rows == 3
        assert engine.loaded().keys() == LAYERS.keys()

    use(repository, triton, work)


def test_a_segment_can_be_asked_for_by_name(triton: StandIn, repository: Repository) -> None:
    async def work(router: Router) -> None:
        rows = np.linspace(-1, 1, 14, dtype=np.float32).reshape(2, 7)
        response = await router.infer(InferRequest("mid", {"input": rows}))
        np.testing.assert_allclose(response.outputs["output"], LAYERS["mid"](rows), rtol=1e-5)
        assert triton.requests == [("mid", ("output",), 2)]

    routed(repository, triton, work)


def test_more_rows_than_a_model_takes_go_in_parts(triton: StandIn, repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        answer = await ask(engine, repository, "probe", "late", rows=15)
        check(answer, "probe", "late", rows=15)
        assert sorted(rows for _, _, rows in triton.requests) == [3, 6, 6]
        assert sum(run.rows for run in answer.runs if run.segment == "trunk") == 15
        triton.requests.clear()
        check(await ask(engine, repository, "late", rows=3, rows_per_run=1), "late", rows=3)
        assert [rows for _, _, rows in triton.requests] == [1, 1, 1]

    use(repository, triton, work)


def test_long_rows_go_in_parts_that_are_as_much_as_the_rows_of_a_model_at_the_reference_sizes(tmp_path: Path) -> None:
    texts = write_free(tmp_path / "repo", ("tag",))

    async def work(engine: TritonEngine) -> None:
        for length, parts in ((REFERENCE, [6]), (1, [6]), (2 * REFERENCE, [3, 3]), (3 * REFERENCE, [2, 2, 2])):
            triton.requests.clear()
            inputs = text(6, length)
            answer = await engine.infer(make_plan(texts, ["tag"]), inputs, Call("tag", rows_per_run=6))
            np.testing.assert_allclose(answer.outputs["tag"], whole("tag", inputs), atol=1e-5)
            assert [rows for _, _, rows in triton.requests] == parts

    with StandIn(texts.path, "none") as triton:
        use(texts, triton, work)


def coupled(repository: Repository, segment: str) -> Repository:
    """Return the family with one segment whose rows may affect each other, as far as anybody knows."""
    return replace(repository, segments={**repository.segments, segment: replace(repository.segments[segment], rows="coupled")})


@pytest.mark.parametrize("segment", ["trunk", "suffix"])
def test_what_goes_through_a_coupled_segment_is_neither_divided_nor_stacked(
    triton: StandIn, repository: Repository, segment: str
) -> None:
    family, tasks = coupled(repository, segment), ["probe", "colour", "parity"]

    async def work(router: Router) -> None:
        answer = await router.infer(all_of(tasks, MAX_ROWS))
        check(Answer(answer.outputs, ()), *tasks, rows=MAX_ROWS)
        assert triton.requests == [(ALL_TASKS, tuple(tasks), MAX_ROWS)]
        triton.requests.clear()
        with pytest.raises(TooManyRows, match=rf"has 7 rows, of which 6 can go at once, .* in segment '{segment}' the rows"):
            await router.infer(all_of(tasks, MAX_ROWS + 1))
        assert triton.requests == []
        triton.refusals[ALL_TASKS] = Refusal("INTERNAL", "no")
        answer = await router.infer(all_of(tasks, MAX_ROWS))
        check(Answer(answer.outputs, ()), *tasks, rows=MAX_ROWS)
        assert [rows for model, _, rows in triton.requests if model == "suffix"] == [MAX_ROWS] * 3
        if segment == "suffix":
            divided = await router.infer(InferRequest("late", {"image": images(MAX_ROWS + 1)}))  # which does not go there
            check(Answer(divided.outputs, ()), "late", rows=MAX_ROWS + 1)

    routed(family, triton, work)


def all_of(tasks: list[str], rows: int) -> InferRequest:
    return InferRequest(ALL_TASKS, {"image": images(rows)}, tuple(map(RequestedOutput, tasks)))


def test_segments_that_nobody_has_checked_are_tried_on_triton(
    triton: StandIn, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """These take six rows at most, and the check needs eight: nothing is found out, they run alone as far as we decide, and it is said."""
    silent = replace(repository, segments={**repository.segments, "mid": replace(repository.segments["mid"], rows="")})

    async def work(router: Router) -> None:
        assert {rows for model, _, rows in triton.requests if model == "mid"} >= {1, 8}
        assert router.catalog.repository.segments["mid"].is_coupled
        (said,) = [message for message in caplog.messages if "may affect each other" in message]
        assert "in segment 'mid' (it does not run on several rows)" in said
        assert said.endswith(
            "Triton goes by what their configuration says of batching; where that is wrong, export the repository again."
        )

    routed(silent, triton, work)


def test_deadline_and_priority_go_along(triton: StandIn, repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        await ask(engine, repository, "late", deadline=time.monotonic() + 60, priority=1)
        await ask(engine, repository, "late")
        (given, nothing) = triton.parameters
        assert given["priority"] == 1
        assert 50_000_000 < given["timeout"] <= 60_000_000
        assert nothing == {}
        triton.requests.clear()
        with pytest.raises(DeadlineExceeded):
            await ask(engine, repository, "late", deadline=time.monotonic() - 1)
        assert triton.requests == []
        triton.held["late"] = threading.Event()
        with pytest.raises(DeadlineExceeded):
            await ask(engine, repository, "late", deadline=time.monotonic() + 1)
        assert [model for model, _, _ in triton.requests] == ["late"]  # and not its steps
        triton.held["late"].set()

    use(repository, triton, work)


class Noting(StandIn):
    """Notes of each request whether its client was there to its end."""

    def __init__(self, repository: Path) -> None:
        super().__init__(repository, "none")
        self.stayed: list[bool] = []

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        answer = super().ModelInfer(request, context)
        self.stayed.append(context.is_active())
        return answer


def test_what_nobody_waits_for_any_more_is_not_cancelled_on_triton_but_counts(repository: Repository) -> None:
    """Real ones end with a segmentation fault now and then when a request is cancelled."""

    async def work(engine: TritonEngine) -> None:
        held = triton.held[ALL_TASKS] = threading.Event()
        leaves = asyncio.create_task(ask(engine, repository, "probe", "late"))
        await eventually(lambda: bool(triton.requests))
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        with pytest.raises(DeadlineExceeded):
            await ask(engine, repository, "probe", "late", deadline=time.monotonic() + 1)
        assert engine.queued_rows() == {"probe": 4}
        with pytest.raises(QueueFull, match="4 rows are waiting for model 'probe', whose share of the limit of 7 has no room"):
            await ask(engine, repository, "probe", "late")
        held.set()
        await eventually(lambda: triton.stayed == [True, True])
        await eventually(lambda: engine.queued_rows() == {})
        check(await ask(engine, repository, "late"), "late")

    with Noting(repository.path) as triton:
        use(repository, triton, work, replace(QUICK, max_queue_rows=7))


@pytest.mark.parametrize("how", ["fails", "is gone"])
def test_when_the_ensemble_fails_the_tasks_that_can_answer_do(triton: StandIn, repository: Repository, how: str) -> None:
    async def work(router: Router) -> None:
        gone = triton.models.pop("head-probe") if how == "is gone" else None
        if how == "fails":
            triton.refusals["head-probe"] = Refusal("INTERNAL", "onnxruntime: bad weights in")
        request = InferRequest(ALL_TASKS, {"image": images(2)}, parameters={"partial_results": True})
        response = await router.infer(request)
        check(Answer(response.outputs, ()), "colour", "parity", "late")
        reason = "does not serve model 'head-probe' at the moment" if gone else "failed on model 'head-probe'"
        assert response.errors == {"probe": f"Triton {reason}."}
        assert triton.runs()["trunk"] == (1 if gone else 2)  # once step by step, and once by the ensemble that failed
        with pytest.raises(TaskFailed, match=f"Task 'probe' could not be computed: Triton {reason}"):
            await router.infer(replace(request, parameters={}))
        with pytest.raises(TaskFailed, match="Task 'probe'"):
            await router.infer(InferRequest("probe", {"image": images(2)}))
        if gone is not None:
            triton.models["head-probe"] = gone

    routed(repository, triton, work)


def test_an_ensemble_that_is_gone_is_replaced_by_its_steps(triton: StandIn, repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        gone = triton.models.pop(ALL_TASKS)
        answer = await ask(engine, repository, *TASK_NAMES)
        triton.models[ALL_TASKS] = gone
        check(answer, *TASK_NAMES)
        assert triton.runs() == dict.fromkeys(LAYERS, 1)
        assert [run.rows for run in answer.runs if run.segment == "suffix"] == [6]

    use(repository, triton, work)


def test_what_waits_is_limited_here_and_there(triton: StandIn, repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        triton.refusals["late"] = Refusal("UNAVAILABLE", "Exceeds maximum queue size")
        with pytest.raises(TritonBusy):
            await ask(engine, repository, "late")
        triton.refusals.clear()
        triton.held["late"] = threading.Event()
        first = asyncio.create_task(ask(engine, repository, "late", rows=5))
        await asyncio.sleep(0)
        assert engine.queued_rows() == {"late": 4}  # its share, of 6
        with pytest.raises(QueueFull, match="4 rows are waiting for model 'late', whose share of the limit of 6 has no room"):
            await ask(engine, repository, "late", rows=2)
        check(await ask(engine, repository, "probe", rows=2), "probe", rows=2)
        triton.held["late"].set()
        check(await first, "late", rows=5)
        check(await ask(engine, repository, "late", rows=20), "late", rows=20)  # alone, it may be larger

    use(repository, triton, work, replace(QUICK, max_queue_rows=6))


def test_it_answers_between_start_and_aclose_only(triton: StandIn, repository: Repository) -> None:
    async def work() -> None:
        engine = TritonEngine(repository, triton.url, QUICK)
        await engine.aclose()
        for _ in range(2):
            with pytest.raises(NotReady):
                await ask(engine, repository, "late")
            await engine.start()
            held = triton.held["late"] = threading.Event()
            asked = asyncio.create_task(ask(engine, repository, "late"))
            await eventually(lambda: bool(triton.requests))
            closing = asyncio.create_task(engine.aclose())
            await asyncio.sleep(0.02)
            held.set()
            await closing
            check(await asked, "late")  # what was asked for is finished
            triton.requests.clear()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--engine", "triton"], "where is Triton? Give its gRPC address"),
        (["--triton-url", "grpc://h"], "--triton-url: is of use with --engine triton only"),
        (["--triton-send-files"], "--triton-send-files: is of use with --engine triton only"),
        (["--triton-shared-memory"], "--triton-shared-memory: is of use with --engine triton only"),
        (
            ["--engine", "triton", "--triton-url", "grpc://h", "--memory-limit", "1GB"],
            "--memory-limit: is of use with --engine embedded or openvino only",
        ),
        (
            ["--engine", "triton", "--triton-url", "grpc://h", "--threads", "2"],
            "--threads: is of use with --engine embedded or openvino only",
        ),
    ],
)
def test_options_that_make_no_sense_together_are_refused(repository: Repository, options: list[str], sentence: str) -> None:
    app = typer.Typer()
    app.command()(serve)
    result = CliRunner().invoke(app, [str(repository.path), *options], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert sentence in result.output
