"""Segments whose rows affect each other: whatever is asked at the same time, a request is answered as if it were alone."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from contract.dtypes import Array
from contract.plan import make_plan
from contract.repository import ALL_TASKS, Repository, Segment, Step, Task, TensorSpec
from contract.repository.config import segment_config
from contract.repository.model import Rows
from serving.catalog import Catalog
from serving.coupling import RowsCheck
from serving.engines.base import Answer, Call
from serving.engines.embedded import EmbeddedEngine
from serving.engines.in_memory import InMemoryEngine
from serving.engines.scheduling.fair_queue import FairQueue
from serving.engines.scheduling.plan_execution import PlanExecution
from serving.errors import EngineError, TooManyRows
from serving.lifecycle import Lifecycle
from serving.server import BackgroundServer
from tests.serving import nets
from tests.serving.coupled_nets import CHAINS, COUPLED, MAX_ROWS, make_segment, some_rows, write_coupled
from tests.serving.nets import make_repository

# --- the scheduler -------------------------------------------------------------------------------------------------------------------

ROW = ("FP32", (1,))
PRIMES = dict(zip("abcdef", (2, 3, 5, 7, 11, 13), strict=True))
MIXING = "bdf"  # those whose rows affect each other


def apply(name: str, x: Array) -> Array:
    """Exact, so that answers are equal or wrong; what mixes rows depends on their sum, their number and their order."""
    number: Any = x
    mixed = number + number.sum(axis=0) + len(number) * number[:1] if name in MIXING else number
    return np.asarray(mixed * 13 % 997 + PRIMES[name])


@st.composite
def families(draw: st.DrawFn) -> Repository:
    """Tasks that are random chains over segments of either kind; equal prefixes share their tensors, equal suffixes their segments."""
    chains = draw(st.lists(st.lists(st.sampled_from(sorted(PRIMES)), min_size=1, max_size=5).map(tuple), min_size=1, max_size=4))
    most = {name: draw(st.integers(2, 9)) for name in PRIMES}
    segments = {
        name: Segment(
            name, (TensorSpec("input", *ROW),), (TensorSpec("output", *ROW),), (0, 0), name, most[name], rows=rows_of(name)
        )
        for name in PRIMES
    }
    tasks = {}
    for number, chain in enumerate(chains):
        name = f"task{number}"
        taps = ["image", *("".join(chain[: end + 1]) for end in range(len(chain) - 1)), name]
        steps = tuple(Step(segment, (taps[place],), (taps[place + 1],)) for place, segment in enumerate(chain))
        tasks[name] = Task(name, steps, (TensorSpec("image", *ROW),), (TensorSpec(name, *ROW),), 8)
    return Repository(Path(), segments, tasks)


def rows_of(name: str) -> Rows:
    return "coupled" if name in MIXING else "independent"


@dataclass(frozen=True)
class Asked:
    tasks: tuple[str, ...]
    rows: Array
    partly: int  # 0, or rows_per_run

    def alone(self, repository: Repository, task: str) -> Array:
        values = self.rows
        for step in repository.tasks[task].steps:
            values = apply(step.segment, values)
        return values


@settings(max_examples=60, deadline=None)
@given(st.data(), families(), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3))
def test_an_answer_is_that_of_the_same_request_alone_or_a_refusal_whatever_else_is_asked(
    data: st.DataObject, repository: Repository, limit: int, workers: int, times: int
) -> None:
    names = st.lists(st.sampled_from(sorted(repository.tasks)), min_size=1, unique=True).map(tuple)
    numbers = st.lists(st.integers(0, 996), min_size=1, max_size=6).map(lambda values: np.array(values).reshape(-1, 1))
    asked = data.draw(st.lists(st.builds(Asked, names, numbers, st.integers(0, 4)), min_size=2, max_size=7))
    functions = {name: (lambda x, name=name: apply(name, x)) for name in PRIMES}
    engine = InMemoryEngine(functions, max_batch_rows=limit, workers=workers)

    async def ask(one: Asked) -> Answer | TooManyRows:
        try:
            return await engine.infer(make_plan(repository, one.tasks), {"image": one.rows}, Call(rows_per_run=one.partly))
        except TooManyRows as refusal:
            return refusal

    async def go() -> list[Answer | TooManyRows]:
        await engine.start()
        try:  # again, when it is known how short they are: then they run in the event loop
            return [answer for _ in range(times) for answer in await asyncio.gather(*map(ask, asked))]
        finally:
            await engine.aclose()

    for one, answer in zip(asked * times, asyncio.run(go()), strict=True):
        if isinstance(answer, TooManyRows):
            assert one.partly
            assert len(one.rows) > one.partly
            assert make_plan(repository, one.tasks).coupled
            continue
        for task in one.tasks:
            np.testing.assert_array_equal(answer.outputs[task], one.alone(repository, task))


@settings(max_examples=40, deadline=None)
@given(st.data(), families())
def test_the_limit_of_rows_is_what_every_model_takes_and_a_plan_that_mixes_nothing_stacks(
    data: st.DataObject, repository: Repository
) -> None:
    catalog = Catalog(repository)
    names = data.draw(st.lists(st.sampled_from(sorted(repository.tasks)), min_size=1, unique=True))
    plan = catalog.plan(catalog.find(ALL_TASKS), names)
    most = catalog.rows_per_run(plan, catalog.find(ALL_TASKS))
    used = {step.segment for step in plan.steps}
    assert plan.coupled in ("", *(name for name in used if name in MIXING))
    assert bool(plan.coupled) == any(name in MIXING for name in used)
    assert all(len(step.inputs) == 1 for step in plan.steps if step.segment in MIXING)
    if plan.coupled:
        assert most == min(8, *(repository.segments[name].max_batch_rows for name in used))
    tasks_alone = {name: segment.is_coupled for name, segment in repository.segments.items()}
    assert tasks_alone == {name: name in MIXING for name in PRIMES}


def test_runs_that_could_begin_are_counted_one_by_one_where_work_runs_alone() -> None:
    segments = {"trunk": replace(make_repository().segments["trunk"], rows="coupled")}
    repository = replace(make_repository(), segments={**make_repository().segments, **segments})
    queue = FairQueue(lambda name: 100)
    for number in range(3):
        plan = make_plan(repository, ["late"])
        queue.push(PlanExecution(plan, {"image": nets.images(2)}, Call(str(number)), number).start()[0])
    assert queue.runs(most=9) == 3
    assert [len(queue.take()) for _ in range(4)] == [1, 1, 1, 0]
    assert queue.runs(most=9) == 0


def test_a_run_that_fails_is_nobody_elses_fault() -> None:
    def fails_on_two(x: Array) -> Array:
        if len(x) == 2:
            raise ValueError("two rows")
        return apply("b", x)

    segment = Segment("b", (TensorSpec("input", *ROW),), (TensorSpec("output", *ROW),), (0, 0), "b", 8, rows="coupled")
    task = Task("t", (Step("b", ("image",), ("t",)),), (TensorSpec("image", *ROW),), (TensorSpec("t", *ROW),), 8)
    repository = Repository(Path(), {"b": segment}, {"t": task})

    async def go() -> list[Answer]:
        engine = InMemoryEngine({"b": fails_on_two})
        await engine.start()
        inputs = [np.arange(rows).reshape(-1, 1) for rows in (1, 2, 3)]
        answers = await asyncio.gather(*(engine.infer(make_plan(repository, ["t"]), {"image": rows}) for rows in inputs))
        await engine.aclose()
        return answers

    one, two, three = asyncio.run(go())
    assert isinstance(two.errors["t"], EngineError)
    np.testing.assert_array_equal(one.outputs["t"], apply("b", np.array([[0]])))
    np.testing.assert_array_equal(three.outputs["t"], apply("b", np.array([[0], [1], [2]])))


# --- a server on real networks -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["marked", "never checked"])
def coupled_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    """The family of coupled_nets.py, of which the configuration says what its rows are, or nobody does."""
    path = tmp_path_factory.mktemp("coupled") / "repo"
    write_coupled(path, marked=request.param == "marked")
    with BackgroundServer(path, http_port=0, grpc_port=0, threads=1) as server:
        yield server


def ask_http(server: BackgroundServer, model: str, rows: Array) -> Mapping[str, Array]:
    return _ask(http_client, http_client.InferenceServerClient(server.http_address), model, rows)


def ask_grpc(server: BackgroundServer, model: str, rows: Array) -> Mapping[str, Array]:
    return _ask(grpc_client, grpc_client.InferenceServerClient(server.grpc_address), model, rows)


def _ask(module: Any, client: Any, model: str, rows: Array) -> Mapping[str, Array]:
    tensor = module.InferInput("rows", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    wanted = list(CHAINS) if model == ALL_TASKS else [model]
    try:
        result = client.infer(model, [tensor], outputs=[module.InferRequestedOutput(name) for name in wanted])
        return {name: result.as_numpy(name) for name in wanted}
    finally:
        client.close()


Ask = Callable[[BackgroundServer, str, Array], Mapping[str, Array]]


@pytest.mark.parametrize("ask", [ask_http, ask_grpc])
def test_requests_beside_others_are_answered_as_alone(coupled_server: BackgroundServer, ask: Ask) -> None:
    asked = [
        (model, some_rows(1 + number % 3, number))
        for number in range(12)
        for model in ("quantised", "centred", "plain", ALL_TASKS)
    ]
    alone = [ask(coupled_server, *one) for one in asked]
    with ThreadPoolExecutor(24) as clients:
        for _ in range(2):
            for (model, _), expected, found in zip(
                asked, alone, clients.map(lambda one: ask(coupled_server, *one), asked), strict=True
            ):
                for name, values in expected.items():
                    np.testing.assert_array_equal(found[name], values, err_msg=model)


@pytest.mark.parametrize("ask", [ask_http, ask_grpc])
def test_more_rows_than_a_run_may_have_are_refused_where_they_cannot_be_divided(
    coupled_server: BackgroundServer, ask: Ask
) -> None:
    rows = some_rows(MAX_ROWS + 1, seed=1)
    for model in ("quantised", "centred", ALL_TASKS):
        with pytest.raises(InferenceServerException) as refusal:
            ask(coupled_server, model, rows)
        assert refusal.value.status() in ("400", "StatusCode.INVALID_ARGUMENT")
        assert f"The request has 7 rows, of which {MAX_ROWS} can go at once, and it cannot be divided: in segment '" in str(
            refusal.value
        )
    in_parts = np.concatenate([ask(coupled_server, "plain", rows[start : start + 1])["plain"] for start in range(len(rows))])
    np.testing.assert_array_equal(ask(coupled_server, "plain", rows)["plain"], in_parts)  # divided as ever


def test_a_segment_says_what_its_rows_are(coupled_server: BackgroundServer) -> None:
    for name in ("dense", *COUPLED):
        config = requests.get(f"http://{coupled_server.http_address}/v2/models/{name}/config", timeout=10).json()
        assert config["parameters"]["rows"]["string_value"] == ("coupled" if name in COUPLED else "independent")
        assert ("dynamic_batching" in config) == (name not in COUPLED)  # so that Triton, too, lets no requests meet there


# --- finding it out ------------------------------------------------------------------------------------------------------------------


def one_by_one(*names: str) -> Repository:
    """Return a task that goes through these segments, of which nobody knows anything."""
    spec = TensorSpec("image", "FP32", (4,))
    segments = {
        name: Segment(name, (replace(spec, name="input"),), (replace(spec, name="output"),), (0, 0), f"{name}-digest", 8)
        for name in names
    }
    taps = ["image", *(f"tap-{name}" for name in names[:-1]), "t"]
    steps = tuple(Step(name, (taps[place],), (taps[place + 1],)) for place, name in enumerate(names))
    return Repository(Path(), segments, {"t": Task("t", steps, (spec,), (replace(spec, name="t"),), 8)})


def judged(
    repository: Repository, functions: Mapping[str, Callable[[Any], Any]], record: Path | None = None
) -> Mapping[str, Rows]:
    async def go() -> Repository:
        engine = InMemoryEngine(functions)
        lifecycle = Lifecycle(repository, engine, rows_record=record)
        await engine.start()
        await lifecycle.begin()
        assert engine.runs == []  # nothing that anybody asked for
        await engine.aclose()
        return lifecycle.catalog.repository

    return {name: segment.rows for name, segment in asyncio.run(go()).segments.items()}


def far_off(x: Any) -> Any:
    """Return numbers for rows that sample rows are far from."""
    with np.errstate(invalid="ignore"):
        return np.sqrt(x - 100)


def table(x: Any) -> Any:
    """Take places of a table, which ends before rows that are ten times as large."""
    return np.linspace(0, 1, 20)[np.floor(x).astype(int) + 10]


@pytest.mark.parametrize(
    ("function", "rows", "said"),
    [
        (np.tanh, "independent", ""),
        (table, "independent", ""),
        (lambda x: x - x.mean(0), "coupled", "answers change beyond measure"),
        (lambda x: x / len(x), "coupled", "answers change by"),
        (lambda x: x + np.random.default_rng().normal(size=x.shape), "coupled", "it answers the same rows differently each time"),
        (lambda x: x[:1], "coupled", "it does not give a row for each row"),
        (lambda x: x.reshape(1, 4), "", "it does not run on several rows"),
        (lambda x: x * np.nan, "", "its answers to sample rows are no numbers"),
    ],
    ids=["independent", "table", "mean", "count", "random", "first", "one", "nan"],
)
def test_what_nobody_knows_is_found_out_at_the_load_and_said(
    function: Callable[[Any], Any], rows: Rows, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving.coupling")
    assert judged(one_by_one("odd", "tail"), {"odd": function, "tail": np.tanh}) == {"odd": rows, "tail": "independent"}
    found, *alone = caplog.messages
    passed = 2 if rows == "independent" else 1
    assert f"Of 2 segments the configuration does not say whether the rows of a batch affect each other; {passed} were" in found
    assert len(alone) == (rows != "independent")
    assert all(f"may affect each other in segment 'odd' ({said}" in sentence for sentence in alone)


def test_inner_segments_are_tried_on_what_those_before_them_give() -> None:
    functions = {"near": np.tanh, "shift": lambda x: x + 200, "far": far_off}
    assert judged(one_by_one("shift", "far"), functions)["far"] == "independent"
    sample_alone = judged(one_by_one("near", "far"), {**functions, "far": lambda x: far_off(x / 100)})["far"]
    assert sample_alone == ""  # treated as coupled


def test_what_the_configuration_says_is_believed_and_the_rest_is_found_once(tmp_path: Path) -> None:
    repository = one_by_one("a", "b")
    segments = {"a": replace(repository.segments["a"], rows="coupled"), "b": repository.segments["b"]}
    runs: list[str] = []

    def noted(name: str) -> Callable[[Any], Any]:
        return lambda x: (runs.append(name), np.tanh(x))[1]

    functions = {name: noted(name) for name in "ab"}
    record = tmp_path / "cache" / "independent.txt"
    for _ in range(2):
        assert judged(replace(repository, segments=segments), functions, record) == {"a": "coupled", "b": "independent"}
        assert record.read_text() == "b-digest\n"
        assert {"a", "b"} >= set(runs)
        first, runs = runs, []
    assert first == []  # the second time nothing ran


def test_what_there_is_no_time_for_runs_alone_until_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, record = one_by_one("a", "b"), tmp_path / "independent.txt"
    clock = itertools.count()  # a run takes a second, and so does a look at the clock
    monkeypatch.setattr("serving.coupling.time", SimpleNamespace(perf_counter=lambda: next(clock)))

    def slow(x: Any) -> Any:
        next(clock)
        return np.tanh(x)

    def check(budget_s: float) -> list[Rows]:
        found = asyncio.run(RowsCheck(InMemoryEngine({"a": slow, "b": slow}), record, budget_s).judged(repository))
        return [segment.rows for segment in found.segments.values()]

    assert check(budget_s=0) == ["", ""]
    assert check(budget_s=5) == ["independent", ""]
    assert check(budget_s=5) == ["independent", "independent"]


def test_repositories_of_before_are_batched_as_ever_once_checked(tmp_path: Path) -> None:
    marked = make_repository()
    silent = replace(marked, segments={name: replace(segment, rows="") for name, segment in marked.segments.items()})
    repository = nets.write_repository(tmp_path / "repo")

    async def go() -> Repository:
        engine = EmbeddedEngine(repository, threads=1)
        await engine.start()
        try:
            return await RowsCheck(engine).judged(silent)
        finally:
            await engine.aclose()

    checked = asyncio.run(go())
    assert make_plan(silent, nets.TASK_NAMES) != make_plan(marked, nets.TASK_NAMES) == make_plan(checked, nets.TASK_NAMES)


def test_what_is_coupled_has_no_dynamic_batching() -> None:
    for name in ("dense", *COUPLED):
        assert segment_config(make_segment(name)).HasField("dynamic_batching") == (name not in COUPLED)
