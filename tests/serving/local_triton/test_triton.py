"""What the exporter writes, on a real Triton: it loads, answers as the embedded engine does, and computes what is shared once."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from contract.dtypes import NUMPY_DTYPES
from contract.plan import make_plan
from contract.repository import ALL_TASKS, Repository
from serving.engines.base import Call
from serving.engines.triton.addresses import parse_urls
from serving.engines.triton.engine import TritonEngine, TritonEngineOptions
from serving.engines.triton.shared_memory_channel import SharedMemoryChannel
from serving.engines.triton.wire import decode
from serving.lifecycle import served_part
from serving.local_triton.command import TritonOptions
from serving.local_triton.environment import TritonEnvironment, set_up
from serving.local_triton.errors import TritonUnavailable
from serving.local_triton.local import LocalTriton, local_triton
from tests.serving import coupled_nets
from tests.serving.coupled_nets import write_coupled
from tests.serving.local_triton.tritons import (
    FAILS,
    FAMILIES,
    KINDS,
    LABELS,
    Arrays,
    Client,
    connect,
    embedded_answers,
    export_family,
    plan_rows,
    rows_for,
    write_every_dtype,
    write_fails,
)
from tests.serving.protocol.held_requests import wait_for

pytestmark = pytest.mark.slow

COUPLED_ALL = "coupled_all"
LIMIT = 1e-5  # of the outputs' spread


@pytest.fixture(scope="module")
def environment() -> TritonEnvironment:
    try:
        return set_up()
    except TritonUnavailable as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class Served:
    """A family, and the Triton that serves it. spread: of each output over 32 rows."""

    name: str
    repository: Repository
    triton: LocalTriton
    spread: dict[str, float]
    http: Client
    grpc: Client

    def client(self, protocol: str) -> Client:
        return self.http if protocol == "http" else self.grpc

    def rows_run(self) -> Counter[str]:
        """Return how many rows each model of the repository has seen since the start."""
        statistics = self.http.server.get_inference_statistics()["model_stats"]
        return Counter({model["name"]: model["inference_count"] for model in statistics})


@pytest.fixture(scope="module", params=FAMILIES)
def served(
    request: pytest.FixtureRequest, environment: TritonEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Each family in turn. `inputs` also has models that are not ours, and loads what it is asked to."""
    name = request.param
    repository = export_family(name, tmp_path_factory.mktemp("triton") / "repo")
    options = TritonOptions()
    if name == "inputs":
        write_every_dtype(repository.path)
        write_fails(repository.path)
        write_coupled(repository.path, all_tasks=COUPLED_ALL)
        options = TritonOptions(model_control="explicit", load=(ALL_TASKS, KINDS, FAILS))
    many = embedded_answers(repository, rows_for(repository, 32, seed=99))
    spread = {output: float(np.std(values, axis=0).max()) for output, values in many.items()}
    with local_triton(repository.path, options) as triton:
        http, grpc = connect("http", triton.addresses), connect("grpc", triton.addresses)
        yield Served(name, repository, triton, spread, http, grpc)
        http.close()
        grpc.close()


def only(*names: str) -> pytest.MarkDecorator:
    """Let a test run with these families alone."""
    return pytest.mark.parametrize("served", names, indirect=True)


def check(found: Arrays, expected: Arrays, served: Served) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert found[name].shape == values.shape
        assert np.abs(found[name] - values).max() <= LIMIT * served.spread[name]


def outputs_of(repository: Repository, task: str) -> list[str]:
    return [output.name for output in repository.tasks[task].outputs]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_every_task_and_all_tasks_answer_as_the_embedded_engine_does(served: Served, rows: int, protocol: str) -> None:
    client = served.client(protocol)
    inputs = rows_for(served.repository, rows, seed=rows)
    expected = embedded_answers(served.repository, inputs)
    check(client.infer(ALL_TASKS, inputs, expected), expected, served)
    for task in served.repository.tasks if served.name != "inputs" else ():
        check(client.infer(task, inputs), {name: expected[name] for name in outputs_of(served.repository, task)}, served)


def test_all_that_was_written_is_ready(served: Served) -> None:
    repository = served.repository
    index = {model["name"]: model.get("state") for model in served.http.server.get_model_repository_index()}
    wanted = {*repository.segments, *repository.copies, ALL_TASKS} | ({*repository.tasks} if served.name != "inputs" else set())
    assert {name: index[name] for name in wanted} == dict.fromkeys(wanted, "READY")
    assert bool(repository.copies) == (served.name in ("wirings", "inputs"))


def test_what_is_shared_runs_once_and_what_is_not_asked_for_does_not_run(served: Served) -> None:
    repository = served.repository
    outputs = [name for task in repository.tasks for name in outputs_of(repository, task)]
    wait_until_counted(served)
    before, expected = served.rows_run(), Counter[str]()
    for wanted in ([name] for name in outputs):
        check_rows(served, wanted, before, expected)
    check_rows(served, outputs, before, expected)
    check_rows(served, outputs[::2], before, expected)
    check_rows(served, outputs[1::2], before, expected)


def check_rows(served: Served, wanted: list[str], before: Counter[str], expected: Counter[str]) -> None:
    """Ask for the outputs `wanted` with 3 rows, and compare what ran since `before` with what is `expected`, which adds up."""
    served.grpc.infer(ALL_TASKS, rows_for(served.repository, 3, outputs=wanted), wanted)
    expected.update(plan_rows(served.repository, wanted, 3))
    ours = {*served.repository.segments}

    def ran() -> dict[str, int]:
        return {name: count for name, count in (served.rows_run() - before).items() if name in ours}

    try:
        wait_for(lambda: ran() == expected)  # Triton counts after it has answered
    except AssertionError:
        assert ran() == expected, wanted


def test_requests_that_are_batched_get_their_own_rows(served: Served) -> None:
    wait_until_counted(served)
    repository, before = served.repository, served.rows_run()
    asked = [(rows_for(repository, 1 + number % 5, seed=number), number) for number in range(40)]
    expected = [embedded_answers(repository, inputs) for inputs, _ in asked[:8]]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda pair: served.grpc.infer(ALL_TASKS, pair[0]), asked))
    for found, wanted in zip(answers, expected, strict=False):
        check(found, wanted, served)
    total = sum(1 + number % 5 for _, number in asked)
    wait_for(lambda: (served.rows_run() - before)[ALL_TASKS] == total)


@only("inputs")
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_request_brings_what_its_outputs_need(served: Served, protocol: str) -> None:
    everything = rows_for(served.repository, 2)
    expected = embedded_answers(served.repository, everything)
    client = served.client(protocol)
    for wanted in (["still"], ["place"], ["still", "place"], ["one"], ["two", "place"]):
        needed = rows_for(served.repository, 2, outputs=wanted)
        for inputs in (needed, everything):
            check(client.infer(ALL_TASKS, inputs, wanted), {name: expected[name] for name in wanted}, served)
    with pytest.raises(InferenceServerException, match=r"expected [12] inputs? but got"):
        client.infer(ALL_TASKS, {"image": everything["image"]}, ["still", "one"])


@only("images")
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_classes_have_their_labels(served: Served, protocol: str) -> None:
    inputs = rows_for(served.repository, 2)
    scores = embedded_answers(served.repository, inputs)
    for model, name in (("probe", "probe"), (ALL_TASKS, "early")):
        found = served.client(protocol).infer(model, inputs, [name], class_count=1)[name]
        for text, values in zip(found.reshape(2), scores[name], strict=True):
            value, index, label = text.decode().split(":")
            assert (int(index), label) == (int(values.argmax()), LABELS[name][values.argmax()])
            assert float(value) == pytest.approx(float(values.max()), abs=1e-3)


@only("images")
def test_what_is_wrong_with_a_request_is_said(served: Served) -> None:
    inputs = rows_for(served.repository, 1)
    with pytest.raises(InferenceServerException, match="batch-size must be <= 64"):
        served.http.infer("probe", rows_for(served.repository, 65))
    with pytest.raises(InferenceServerException, match="unexpected shape"):
        served.http.infer("probe", {"image": inputs["image"][:, :5]})
    with pytest.raises(InferenceServerException, match="nothing"):
        served.grpc.infer("probe", inputs, ["nothing"])


@only("inputs")
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_dtype_passes_through(served: Served, protocol: str) -> None:
    inputs = {f"in_{kind}": np.array([[0, 1], [2, 100]]).astype(dtype) for kind, dtype in NUMPY_DTYPES.items() if kind != "BYTES"}
    inputs["in_BYTES"] = np.array([[b"", b"a\0b"], ["ä".encode(), b"x" * 1000]], dtype=np.object_)
    found = served.client(protocol).infer(KINDS, inputs)
    for name, values in inputs.items():
        np.testing.assert_array_equal(found[name.replace("in_", "out_")], values)
        assert found[name.replace("in_", "out_")].dtype == values.dtype
    some = served.client(protocol).infer(KINDS, inputs, ["out_INT64", "out_BYTES"])
    assert some.keys() == {"out_INT64", "out_BYTES"}


@only("inputs")
def test_a_run_that_fails_is_an_error_and_the_model_goes_on(served: Served) -> None:
    np.testing.assert_array_equal(served.grpc.infer(FAILS, {"in": np.array([2, 0])})["out"], np.float32([2.5, 0.5]))
    for protocol in ("http", "grpc"):
        with pytest.raises(InferenceServerException, match=r"ONNX Runtime: .*indices element out of data bounds"):
            served.client(protocol).infer(FAILS, {"in": np.array([3])})
    np.testing.assert_array_equal(served.http.infer(FAILS, {"in": np.array([1])})["out"], np.float32([1.5]))


@only("inputs")
def test_clients_load_and_unload_tasks(served: Served) -> None:
    server, inputs = served.http.server, rows_for(served.repository, 2, outputs=["one"])
    expected = embedded_answers(served.repository, rows_for(served.repository, 2))["one"]
    assert not server.is_model_ready("one")
    with pytest.raises(InferenceServerException, match="one"):
        served.http.infer("one", inputs)
    server.load_model("one")
    check(served.http.infer("one", inputs), {"one": expected}, served)
    server.unload_model("one")
    wait_for(lambda: not server.is_model_ready("one"))
    assert server.is_model_ready(ALL_TASKS)


@only("inputs")
def test_requests_do_not_meet_where_rows_affect_each_other(served: Served) -> None:
    """Not in a task's ensemble, nor in one of all tasks; and where they do not, they are batched as ever."""
    models = (COUPLED_ALL, *coupled_nets.CHAINS)
    for model in models:
        served.grpc.server.load_model(model)
    asked = [(model, {"rows": coupled_nets.some_rows(1 + number % 3, number)}) for number in range(12) for model in models]
    alone = [served.grpc.infer(*one) for one in asked]
    wait_until_counted(served)
    before = runs_of(served)
    with ThreadPoolExecutor(24) as clients:
        for (model, _), expected, found in zip(
            asked, alone, clients.map(lambda one: served.grpc.infer(*one), asked), strict=True
        ):
            for name, values in expected.items():
                np.testing.assert_array_equal(found[name], values, err_msg=model)
    wait_for(lambda: (runs_of(served) - before)["quantised-mlp"] == 24)  # a run for each request of those that need it


def runs_of(served: Served) -> Counter[str]:
    statistics = served.http.server.get_inference_statistics()["model_stats"]
    return Counter({model["name"]: model["execution_count"] for model in statistics})


def wait_until_counted(served: Served) -> None:
    """Triton counts a request after it has answered; wait for those of the tests before."""
    seen: list[Counter[str]] = [Counter()]

    def is_still() -> bool:
        seen.append(served.rows_run())
        time.sleep(0.2)
        return len(seen) > 3 and seen[-1] == seen[-3]

    wait_for(is_still)


def test_the_triton_engine_answers_as_the_embedded_one_and_runs_what_the_plan_says(served: Served) -> None:
    """It finds all there, or loads what is missing (`inputs`), and asks ensembles only."""
    repository = served.repository
    inputs = rows_for(repository, 3, seed=5)
    expected = embedded_answers(repository, inputs)
    outputs = [name for task in repository.tasks for name in outputs_of(repository, task)]
    wait_until_counted(served)

    async def work() -> None:
        engine = TritonEngine(repository, served.triton.grpc_url, TritonEngineOptions(statistics_s=0.05))
        await engine.start()
        try:
            rows = Counter[str]()
            for wanted in (outputs, outputs[::2], *([name] for name in outputs)):
                answer = await engine.infer(make_plan(repository, wanted), inputs)
                check(dict(answer.outputs), {name: expected[name] for name in wanted}, served)
                rows.update(plan_rows(repository, wanted, 3))
                ran = Counter[str]()
                for run in answer.runs:
                    ran[run.segment] += run.rows
                assert ran == plan_rows(repository, wanted, 3)
            async with asyncio.timeout(20):
                while {name: done.rows for name, done in engine.statistics().items() if done.rows} != rows:
                    await asyncio.sleep(0.02)
        finally:
            await engine.aclose()

    asyncio.run(work())


@only("images", "inputs")
def test_inputs_in_shared_memory_give_the_same_answers(served: Served) -> None:
    repository = served.repository
    outputs = [name for task in repository.tasks for name in outputs_of(repository, task)]

    async def work() -> None:
        engine = TritonEngine(repository, served.triton.grpc_url, TritonEngineOptions(shared_from_bytes=1))
        await engine.start()
        try:
            for inputs, expected in asked:
                answer = await engine.infer(make_plan(repository, outputs), inputs)
                check(dict(answer.outputs), expected, served)
            assert len(regions()) >= 1
        finally:
            await engine.aclose()

    def regions() -> dict[str, object]:
        return dict(served.grpc.server.get_system_shared_memory_status().regions)

    asked = [(inputs, embedded_answers(repository, inputs)) for inputs in (rows_for(repository, rows) for rows in (1, 5, 64))]
    asyncio.run(work())
    assert regions() == {}


@only("inputs")
def test_what_fits_into_shared_memory_goes_there_and_strings_go_with_the_message(served: Served) -> None:
    inputs: Arrays = {f"in_{kind}": np.array([[0, 1], [2, 100]]).astype(dtype) for kind, dtype in NUMPY_DTYPES.items()}
    inputs["in_BYTES"] = np.array([[b"", b"a\0b"], ["ä".encode(), b"x" * 1000]], dtype=np.object_)
    outputs = [name.replace("in_", "out_") for name in inputs]

    async def work() -> None:
        line = SharedMemoryChannel(parse_urls(served.triton.grpc_url)[0], from_bytes=1)
        await line.start()
        response = await line.infer(KINDS, inputs, outputs, Call())
        for name, values in decode(response, KINDS, outputs, 2).items():
            np.testing.assert_array_equal(values, inputs[name.replace("out_", "in_")])
        await line.aclose()

    asyncio.run(work())


@only("inputs")
def test_the_triton_engine_has_tasks_come_and_go(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    repository, inputs = served.repository, rows_for(served.repository, 2)
    expected = embedded_answers(repository, inputs)
    one = served_part(replace(repository, tasks={"one": repository.tasks["one"]}))

    async def ask(engine: TritonEngine, *tasks: str) -> None:
        answer = await engine.infer(make_plan(repository, list(tasks)), inputs)
        check(dict(answer.outputs), {name: expected[name] for task in tasks for name in outputs_of(repository, task)}, served)

    async def work() -> None:
        engine = TritonEngine(repository, served.triton.grpc_url, TritonEngineOptions(keep_s=0))
        await engine.start()
        try:
            await engine.load(one)
            await engine.release(repository.segments.keys() - one.segments.keys())
            assert not served.http.server.is_model_ready("two")
            await ask(engine, "one")
            await engine.load(repository)
            await ask(engine, "two")
            await ask(engine, "one", "two")
        finally:
            await engine.aclose()

    asyncio.run(work())
    assert "asked for one by one" not in caplog.text


@only("inputs")
def test_a_model_that_does_not_fit_its_configuration_is_not_loaded(served: Served) -> None:
    right, wrong = served.repository.path / FAILS, served.repository.path / "other-names"
    shutil.copytree(right, wrong)
    (wrong / "config.pbtxt").write_text((right / "config.pbtxt").read_text().replace('"in"', '"inn"'))
    with pytest.raises(InferenceServerException, match=r"inputs of config.pbtxt and of the ONNX model differ in \['in', 'inn'\]"):
        served.http.server.load_model("other-names")
