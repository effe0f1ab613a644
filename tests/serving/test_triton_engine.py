"""The Triton engine on a stand-in that behaves as Triton does (stand_in.py); tests/serving/test_triton.py has it on a real one."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from espalier.commands.serve import serve
from serving.engines.base import Answer, Call
from serving.engines.triton.addresses import Address
from serving.engines.triton.channels import Line
from serving.engines.triton.control import TritonServer
from serving.engines.triton.engine import TritonEngine, TritonEngineOptions
from serving.engines.triton.errors import ModelControlOff, TritonBusy, TritonLoadFailed, TritonUnreachable
from serving.engines.triton.fleet import Fleet
from serving.engines.triton.wire import decode, encode
from serving.errors import DeadlineExceeded, EngineDown, LoadFailed, NotReady, QueueFull, TaskFailed
from serving.lifecycle import served_part
from serving.messages import InferRequest
from serving.plan import ExecutionPlan, make_plan
from serving.repository import ALL_TASKS, Repository
from serving.repository.config import task_config, to_text
from serving.repository.record import OutputRecord, ParityRecord
from serving.router import Router
from serving.server import BackgroundServer
from tests.serving.nets import CHAINS, LAYERS, TASK_NAMES, images, whole, write_repository
from tests.serving.stand_in import Refusal, StandIn
from tests.serving.test_http import PICTURE, Http
from tests.serving.test_triton_choice import with_other_probe
from tests.serving.test_wire_terms import ask_grpc, ask_http, wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUICK = TritonEngineOptions(wait_s=10, statistics_s=0.05, resolve_s=0.1)


@pytest.fixture(scope="module")
def shared(repository: Repository) -> Iterator[StandIn]:
    """One that has loaded everything at its start, and loads nothing when asked."""
    with StandIn(repository.path, "none") as triton:
        yield triton


@pytest.fixture
def triton(shared: StandIn) -> Iterator[StandIn]:
    yield shared
    shared.held.clear()
    shared.refusals.clear()
    for record in (shared.requests, shared.parameters, shared.loads):
        record.clear()
    for model in shared.models.values():
        model.runs.clear()
    shared.cancelled.clear()


@asynccontextmanager
async def started(repository: Repository, urls: str, options: TritonEngineOptions = QUICK) -> AsyncIterator[TritonEngine]:
    engine = TritonEngine(repository, urls, options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()


def use(
    repository: Repository,
    triton: StandIn,
    work: Callable[[TritonEngine], Awaitable[None]],
    options: TritonEngineOptions = QUICK,
) -> None:
    async def run() -> None:
        async with started(repository, triton.url, options) as engine:
            await work(engine)

    asyncio.run(run())


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.002)


async def ask(engine: TritonEngine, repository: Repository, *tasks: str, rows: int = 2, **call: float) -> Answer:
    return await engine.infer(make_plan(repository, tasks), {"image": images(rows)}, Call(**call))  # type: ignore[arg-type]


def check(answer: Answer, *tasks: str, rows: int = 2) -> None:
    assert {*answer.outputs} == {*tasks}
    for task in tasks:
        np.testing.assert_allclose(answer.outputs[task], whole(task, images(rows)), rtol=1e-4, atol=1e-5)


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


def routed(repository: Repository, triton: StandIn, work: Callable[[Router], Awaitable[None]]) -> None:
    async def run() -> None:
        router = Router(repository, TritonEngine(repository, triton.url, QUICK))
        await router.start()
        try:
            await work(router)
        finally:
            await router.aclose()

    asyncio.run(run())


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
            await ask(engine, repository, "late", deadline=time.monotonic() + 0.1)
        assert [model for model, _, _ in triton.requests] == ["late"]  # and not its steps
        triton.held["late"].set()

    use(repository, triton, work)


def test_who_goes_away_cancels_the_request_on_triton(triton: StandIn, repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        triton.held[ALL_TASKS] = threading.Event()
        asked = asyncio.create_task(ask(engine, repository, "probe", "late"))
        await eventually(lambda: bool(triton.requests))
        asked.cancel()
        assert await asyncio.to_thread(triton.cancelled.wait, 20)
        triton.held[ALL_TASKS].set()
        check(await ask(engine, repository, "late"), "late")

    use(repository, triton, work)


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
        with pytest.raises(QueueFull, match="5 rows are waiting and 6 is the limit"):
            await ask(engine, repository, "late", rows=2)
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


@pytest.fixture
def own(tmp_path: Path) -> Repository:
    """A repository that may be changed, and of which a Triton loads what it is told."""
    return write_repository(tmp_path / "repo")


def without(repository: Repository, *tasks: str) -> Repository:
    return served_part(replace(repository, tasks={name: task for name, task in repository.tasks.items() if name not in tasks}))


@pytest.mark.parametrize("send_files", [False, True], ids=["its own repository", "sent"])
def test_tasks_come_and_go_in_an_order_that_lets_requests_go_on(own: Repository, tmp_path: Path, send_files: bool) -> None:
    (tmp_path / "empty").mkdir()
    with StandIn(tmp_path / "empty" if send_files else own.path) as triton:
        before = without(own, "late")

        async def work(engine: TritonEngine) -> None:
            parts = sorted(before.segments)
            assert triton.loads == [*parts, *before.tasks, ALL_TASKS]
            triton.loads.clear()
            await engine.load(own)
            assert triton.loads == ["branch-late", "late", ALL_TASKS]
            check(await ask(engine, own, *TASK_NAMES), *TASK_NAMES)
            assert {model for model, _, _ in triton.requests} == {ALL_TASKS}
            triton.loads.clear()
            await engine.load(before)
            assert triton.loads == [ALL_TASKS, "-late"]
            check(await ask(engine, own, *TASK_NAMES), *TASK_NAMES)  # one that began before, step by step
            await engine.release({"branch-late", "trunk"})
            assert triton.loads == [ALL_TASKS, "-late", "-branch-late"]  # the trunk is in use
            triton.requests.clear()
            check(await ask(engine, before, "probe", "colour"), "probe", "colour")
            assert triton.requests == [(ALL_TASKS, ("probe", "colour"), 2)]

        use(before, triton, work, replace(QUICK, send_files=send_files))


def test_requests_never_get_an_answer_of_another_version(own: Repository) -> None:
    """A replaced task keeps its name on Triton. Clients of both versions ask before, while and after it is replaced."""
    new = served_part(with_other_probe(own))
    plans = {repository.tasks["probe"].version: make_plan(repository, ["probe", "late"]) for repository in (own, new)}
    right = {"1": whole("probe", images(1)), "2": LAYERS["head-probe"](_features("colour"))}

    async def check_version(engine: TritonEngine, version: str) -> None:
        answer = await engine.infer(plans[version], {"image": images(1)})
        np.testing.assert_allclose(answer.outputs["probe"], right[version], rtol=1e-4, atol=1e-5)

    async def work(engine: TritonEngine) -> None:
        done = False

        async def client(version: str) -> None:
            while not done:
                await check_version(engine, version)

        clients = [asyncio.create_task(client(version)) for version in ("1", "2")]
        for repository in (new, own) * 3:
            await engine.load(repository)
            await asyncio.sleep(0.02)
        await engine.load(new)
        done = True
        await asyncio.gather(*clients)
        triton.requests.clear()
        await check_version(engine, "2")
        assert [model for model, _, _ in triton.requests] == [ALL_TASKS]

    with StandIn(own.path) as triton:
        use(own, triton, work)


def test_a_load_waits_for_requests_on_their_way_to_what_it_replaces(own: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        held = triton.held["probe"] = threading.Event()
        asked = asyncio.create_task(ask(engine, own, "probe"))
        await eventually(lambda: bool(triton.requests))
        triton.loads.clear()
        loading = asyncio.create_task(engine.load(served_part(with_other_probe(own))))
        check(await ask(engine, own, "late"), "late")
        check(await ask(engine, own, "probe"), "probe")
        assert {model for model, _, _ in triton.requests[1:]} == {"late", *CHAINS["probe"]}
        assert triton.loads == []
        held.set()
        check(await asked, "probe")
        await loading
        assert triton.loads == ["probe", ALL_TASKS]

    with StandIn(own.path) as triton:
        use(own, triton, work)


def test_a_triton_that_is_not_used_any_more_is_out_of_reach(triton: StandIn) -> None:
    """Its channel is closed while, and before, somebody asks it: that is no cancellation of who asks."""

    async def work() -> None:
        server = TritonServer(Address("127.0.0.1", triton.port))
        assert await server.is_ready("late")
        asked = asyncio.create_task(server.config("late"))
        await asyncio.sleep(0)
        await server.aclose()
        with pytest.raises(TritonUnreachable, match="it is not used any more"):
            await asked
        with pytest.raises(TritonUnreachable, match="it is not used any more"):
            await server.statistics()

    asyncio.run(work())


def _features(task: str) -> np.ndarray:
    values: np.ndarray = images(1)
    for name in CHAINS[task][:3]:
        values = LAYERS[name](values)
    return values


def test_a_load_that_fails_leaves_everything_as_it_was_on_all_tritons(own: Repository, tmp_path: Path) -> None:
    before = without(own, "late")
    other = write_repository(tmp_path / "other").path  # that of a Triton on another machine
    (other / "branch-late/1/model.onnx").write_bytes(b"truncated")

    async def work(engine: TritonEngine) -> None:
        await eventually(lambda: len(engine._fleet.servers) == 2)  # type: ignore[union-attr]
        with pytest.raises(TritonLoadFailed, match=r"^Triton could not load model 'branch-late'; its log says why\.$"):
            await engine.load(own)
        for triton in (good, bad):
            assert triton.models.keys() == {*before.segments, *before.tasks, ALL_TASKS}
            assert {output.name for output in triton.models[ALL_TASKS].config.output} == {*before.tasks}
        for _ in range(4):
            check(await ask(engine, before, *before.tasks), *before.tasks)
        assert {model for model, _, _ in good.requests + bad.requests} == {ALL_TASKS}
        (other / "branch-late/1/model.onnx").write_bytes(own.model_file("branch-late").read_bytes())
        await engine.load(own)
        check(await ask(engine, own, "late"), "late")

    with StandIn(own.path) as good, StandIn(other) as bad:
        asyncio.run(_with(before, f"{good.url},{bad.url}", work))


async def _with(repository: Repository, urls: str, work: Callable[[TritonEngine], Awaitable[None]]) -> None:
    async with started(repository, urls) as engine:
        await work(engine)


def test_a_task_that_answers_wrongly_is_taken_out_of_triton_again(own: Repository) -> None:
    async def work(router: Router) -> None:
        await router.unload("late")
        await router.lifecycle.settle()
        wrong = replace(own.tasks["late"], parity=ParityRecord((OutputRecord((9.0,) * 4, 1.0),), 0.02))
        (own.path / "late/config.pbtxt").write_text(to_text(task_config(wrong)))
        before = dict(triton.models)
        with pytest.raises(LoadFailed, match="task 'late' answers its recorded sample with an error"):
            await router.load("late")
        assert triton.models.keys() == before.keys()
        triton.requests.clear()
        response = await router.infer(InferRequest(ALL_TASKS, {"image": images(2)}))
        check(Answer(response.outputs, ()), "probe", "colour", "parity")
        assert [model for model, _, _ in triton.requests] == [ALL_TASKS]

    with StandIn(own.path) as triton:
        routed(own, triton, work)


def test_a_triton_that_loads_nothing_serves_what_it_has(triton: StandIn, repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        changed = served_part(with_other_probe(repository))
        with pytest.raises(
            ModelControlOff, match="would have to load 'probe', but it was not started with --model-control-mode=explicit"
        ):
            await engine.load(changed)
        check(await ask(engine, repository, "probe"), "probe")
        with pytest.raises(ModelControlOff, match="'probe'"):  # it serves another version than the repository has by now
            await _with(changed, triton.url, work)

    use(repository, triton, work)


def test_a_start_without_a_triton_says_so(repository: Repository) -> None:
    engine = TritonEngine(repository, "grpc://127.0.0.1:1", TritonEngineOptions(wait_s=0.3))
    with pytest.raises(TritonUnreachable, match=r"^No Triton answers at grpc://127.0.0.1:1 \(it does not answer\); start one"):
        asyncio.run(engine.start())
    engine = TritonEngine(repository, "grpc://no.such.host.invalid", TritonEngineOptions(wait_s=0.3))
    with pytest.raises(TritonUnreachable, match=r"No Triton answers at grpc://no\.such\.host\.invalid:8001"):
        asyncio.run(engine.start())


def test_all_down_is_said_at_once_and_forgotten_when_one_is_back(own: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        held = triton.held["late"] = threading.Event()
        asked = asyncio.create_task(ask(engine, own, "late"))
        await eventually(lambda: bool(triton.requests))
        await asyncio.to_thread(triton.stop)
        with pytest.raises(EngineDown):
            await asked
        for _ in range(20):
            with pytest.raises(EngineDown, match="does not answer at the moment; try again later"):
                await asyncio.wait_for(ask(engine, own, "late"), 5)
            await asyncio.sleep(0.02)
        held.set()
        triton.held.clear()
        triton.start()  # empty, as it loads what it is told
        await eventually(lambda: engine._fleet.line is not None)  # type: ignore[union-attr]
        check(await ask(engine, own, *TASK_NAMES), *TASK_NAMES)

    with StandIn(own.path) as triton:
        use(own, triton, work)


def test_one_that_comes_later_is_given_what_is_served_and_then_used(own: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        await engine.load(without(own, "late"))
        late_comer.start()
        async with asyncio.timeout(20):
            while not late_comer.requests:
                check(await ask(engine, own, "probe", "colour"), "probe", "colour")
        assert "late" not in late_comer.models

    with StandIn(own.path) as first:
        late_comer = StandIn(own.path)
        with StandIn(own.path) as taken:  # to know a free port
            late_comer.port = taken.port
        try:
            asyncio.run(_with(own, f"{first.url},127.0.0.1:{late_comer.port}", work))
        finally:
            late_comer.stop()


@contextmanager
def process(repository: Repository) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "tests.serving.stand_in", str(repository.path), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        try:
            assert running.stdout is not None
            yield running, f"grpc://127.0.0.1:{running.stdout.readline().strip()}"
        finally:
            running.kill()


def test_one_of_two_killed_under_load_costs_no_request(repository: Repository) -> None:
    async def work(engine: TritonEngine) -> None:
        await eventually(lambda: len(engine._fleet.servers) == 2)  # type: ignore[union-attr]
        done, answers = False, 0

        async def client(plan: ExecutionPlan, rows: int) -> None:
            nonlocal answers
            while not done:
                answer = await engine.infer(plan, {"image": images(rows)})
                assert not answer.errors
                answers += 1

        plans = [make_plan(repository, ["probe", "late"]), make_plan(repository, ["colour"])]
        clients = [asyncio.create_task(client(plan, rows)) for plan in plans for rows in (1, 2, 5, 6)]
        await eventually(lambda: answers > 200 or any(one.done() for one in clients))
        killed.send_signal(signal.SIGKILL)
        before = answers
        await eventually(lambda: answers > before + 200 or any(one.done() for one in clients))
        await eventually(lambda: len(engine._fleet.servers) == 1)  # type: ignore[union-attr]
        await asyncio.sleep(0.1)  # they go on without the one that is gone
        done = True
        await asyncio.gather(*clients)

    with process(repository) as (killed, url), process(repository) as (_, other):
        asyncio.run(_with(repository, f"{url},{other}", work))


class Refusing(StandIn):
    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append((request.model_name, (), 0))
        context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")


def test_a_large_request_is_tried_again_elsewhere_too(repository: Repository) -> None:
    """gRPC sends again what it has kept, by default 256 kB."""

    async def work() -> None:
        line = Line([Address("127.0.0.1", one.port) for one in (refusing, well)])
        request = encode("late", {"image": images(2)}, ["late"], Call(), None)
        request.id = "x" * 3_000_000
        for _ in range(4):
            answer = decode(await line.infer(request, timeout=20), "late", ["late"], 2)
            np.testing.assert_allclose(answer["late"], whole("late", images(2)), rtol=1e-4, atol=1e-5)
        await line.aclose()
        assert refusing.requests

    with Refusing(repository.path, "none") as refusing, StandIn(repository.path, "none") as well:
        asyncio.run(work())


def test_a_name_stands_for_those_that_it_stands_for_now(repository: Repository) -> None:
    """One is added to a name and used, another is taken out and left alone; a resolver that fails for a while changes nothing."""
    name = Address("triton", 8001)
    here: list[Address] | None = []

    async def resolve(address: Address) -> frozenset[Address]:
        if here is None:
            raise OSError("no answer")
        return frozenset(here)

    async def admit(server: TritonServer, enter: Callable[[], None]) -> None:
        enter()

    async def work() -> None:
        nonlocal here
        addresses = [Address("127.0.0.1", one.port) for one in (first, second)]
        fleet = Fleet([name], admit, resolve_s=0.01, resolve=resolve)
        starting = asyncio.create_task(fleet.start(20))
        for found in ([addresses[0]], addresses, None, [addresses[1]]):
            here = found
            expected = addresses if found is None else found
            await eventually(lambda expected=expected: fleet.servers.keys() == {*expected})  # type: ignore[misc]
            await asyncio.sleep(0.05)
            assert fleet.servers.keys() == {*expected}
        await starting
        await fleet.aclose()

    with StandIn(repository.path) as first, StandIn(repository.path) as second:
        asyncio.run(work())


def test_behind_our_own_front(repository: Repository, server: BackgroundServer) -> None:
    """The engine in a server; as its Triton another espalier, which speaks the same protocol, then nobody."""
    with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1) as behind:
        engine = TritonEngine(repository, f"grpc://{behind.grpc_address}", QUICK)
        front = BackgroundServer(repository, engine, http_port=0, grpc_port=0)
        with front:
            http, other = Http(front), Http(server)
            mine, embedded = (ask_it("POST", "/predict?top_k=1", PICTURE) for ask_it in (http, other))
            assert mine[0] == embedded[0] == 200
            best = [{task: found["labels"][0]["label"] for task, found in one[1]["tasks"].items()} for one in (mine, embedded)]
            assert best[0] == best[1]
            assert [ask_http(front, "late").outputs, ask_grpc(front, ALL_TASKS).outputs] == [("late",), tuple(sorted(TASK_NAMES))]
            assert ask_http(front, "late", timeout=1).status == 504
            behind.__exit__(None, None, None)
            wait_for(lambda: engine._fleet.line is None)  # type: ignore[union-attr]
            by_http, by_grpc = ask_http(front), ask_grpc(front)
            assert (by_http.status, by_http.headers["retry-after"]) == (503, "1")
            assert (by_grpc.status, by_grpc.headers["retry-after"]) == ("UNAVAILABLE", "1")
            assert by_http.sentence == by_grpc.sentence == str(EngineDown())
            assert http("POST", "/predict", PICTURE)[0] == 503
            for one in (http, other):
                one.connection.close()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--engine", "triton"], "where is Triton? Give its gRPC address"),
        (["--triton-url", "grpc://h"], "--triton-url: is of use with --engine triton only"),
        (["--triton-send-files"], "--triton-send-files: is of use with --engine triton only"),
        (
            ["--engine", "triton", "--triton-url", "grpc://h", "--memory-limit", "1GB"],
            "--memory-limit: is of use with --engine embedded only",
        ),
        (
            ["--engine", "triton", "--triton-url", "grpc://h", "--threads", "2"],
            "--threads: is of use with --engine embedded only",
        ),
    ],
)
def test_options_that_make_no_sense_together_are_refused(repository: Repository, options: list[str], sentence: str) -> None:
    app = typer.Typer()
    app.command()(serve)
    result = CliRunner().invoke(app, [str(repository.path), *options], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert sentence in result.output
