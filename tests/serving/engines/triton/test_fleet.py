"""Tritons that come and go under the Triton engine, on stand-ins (stand_in.py)."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from contract.plan import ExecutionPlan, make_plan
from contract.repository import ALL_TASKS, Repository
from serving.engines.base import Call
from serving.engines.triton.addresses import Address
from serving.engines.triton.channels import TritonChannel
from serving.engines.triton.control import TritonServer
from serving.engines.triton.engine import TritonEngine, TritonEngineOptions
from serving.engines.triton.errors import TritonUnreachable
from serving.engines.triton.fleet import Fleet
from serving.engines.triton.wire import decode, encode
from serving.errors import EngineDown
from serving.server import BackgroundServer
from tests.serving.engines.triton.engine_on_stand_in import QUICK, ask, check, eventually, use, with_engine, without
from tests.serving.nets import TASK_NAMES, images, whole
from tests.serving.protocol.held_requests import ask_grpc, ask_http, wait_for
from tests.serving.protocol.http.test_http import PICTURE, Http
from tests.serving.stand_in import StandIn

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]


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
        await eventually(lambda: engine._fleet.channel is not None)  # type: ignore[union-attr]
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
            asyncio.run(with_engine(own, f"{first.url},127.0.0.1:{late_comer.port}", work))
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
        asyncio.run(with_engine(repository, f"{url},{other}", work))


class Refusing(StandIn):
    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.requests.append((request.model_name, (), 0))
        context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")


def test_a_large_request_is_tried_again_elsewhere_too(repository: Repository) -> None:
    """gRPC sends again what it has kept, by default 256 kB."""

    async def work() -> None:
        line = TritonChannel([Address("127.0.0.1", one.port) for one in (refusing, well)])
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
            wait_for(lambda: engine._fleet.channel is None)  # type: ignore[union-attr]
            by_http, by_grpc = ask_http(front), ask_grpc(front)
            assert (by_http.status, by_http.headers["retry-after"]) == (503, "1")
            assert (by_grpc.status, by_grpc.headers["retry-after"]) == ("UNAVAILABLE", "1")
            assert by_http.sentence == by_grpc.sentence == str(EngineDown())
            assert http("POST", "/predict", PICTURE)[0] == 503
            for one in (http, other):
                one.connection.close()
