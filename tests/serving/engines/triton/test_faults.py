"""What can go wrong with real Tritons, and what clients of the servers in front of them notice of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

import espalier
from contract.repository import ALL_TASKS, read_repository
from contract.repository.config import parse_text, to_text
from espalier.commands.options.servers import notify
from espalier.commands.options.token import VARIABLE
from serving.engines.triton.addresses import parse_urls
from serving.engines.triton.control import TritonServer
from serving.engines.triton.models import KeptModels
from serving.errors import EngineDown, RequestRefused
from serving.local_triton.environment import set_up
from serving.local_triton.errors import TritonUnavailable
from tests.serving.engines.triton.triton_pair import TOKEN, Pair, Served, closed, metric
from tests.serving.exact_nets import head, set_gate, write_family, write_task
from tests.serving.process.test_process import started
from tests.serving.protocol.held_requests import wait_for
from tests.serving.steady_clients import Addressed, Client, GrpcClient, HttpClient, Load, Reply, clients_of

pytestmark = pytest.mark.slow

STILL, MOVING, GATED = 11, 21, 51  # the tasks' seeds
FAMILY = {"still": STILL, "moving": MOVING}


@pytest.fixture(scope="module")
def tritons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """They keep what a test has had loaded; segments are named by content, so that it does no harm."""
    try:
        set_up()
    except TritonUnavailable as error:
        pytest.skip(str(error))
    made = Pair(tmp_path_factory.mktemp("empty"))
    yield made
    made.stop()


@pytest.fixture
def pair(tritons: Pair) -> Pair:
    tritons.start()
    return tritons


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_family(tmp_path / "repo", FAMILY).path


@pytest.fixture
def server(pair: Pair, folder: Path) -> Iterator[Served]:
    with Served(folder, pair.urls) as running:
        running.uses(2)
        yield running


def ask_by(connect: Callable[[Addressed], Client], server: Addressed, model: str, **parameters: object) -> Reply:
    with closing(connect(server)) as client:
        return client(model, 2, **parameters)


def ask(server: Addressed, model: str, **parameters: object) -> list[Reply]:
    """Ask over both protocols, two rows each."""
    return [ask_by(connect, server, model, **parameters) for connect in (HttpClient, GrpcClient)]


def test_updates_under_load_cost_no_request_and_change_one_task_only(server: Served, folder: Path) -> None:
    seeds = {str(version): MOVING + version - 1 for version in (1, 2, 3)}
    with Load(clients_of(server, "still", "moving", ALL_TASKS)) as load:
        load.go_on()
        for version in (2, 3):
            write_task(folder, "moving", seeds[str(version)], version)
            server.load("moving")
            load.go_on()
    for seen in load.of("still"):
        for reply in seen:
            reply.check(still=STILL)
    for seen in load.of("moving"):
        versions = [reply.version for reply in seen]
        assert versions == sorted(versions)
        assert {*versions} == seeds.keys()
        for reply in seen:
            reply.check(moving=seeds[reply.version])
    for seen in load.of(ALL_TASKS):
        found = [next(seed for seed in seeds.values() if is_of(reply, seed)) for reply in seen]
        assert found == sorted(found)
        assert {*found} == {*seeds.values()}


def is_of(reply: Reply, moving: int) -> bool:
    try:
        reply.check(still=STILL, moving=moving)
    except AssertionError:
        return False
    return True


def test_tasks_that_are_deployed_at_once_are_all_served_but_one_that_is_broken(
    server: Served, folder: Path, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    new = {"one": 31, "two": 32}
    for task, seed in {**new, "broken": 33}.items():
        write_task(folder, task, seed)
    (folder / head("broken", 33) / "1/model.onnx").write_bytes(b"truncated")
    with ThreadPoolExecutor(3) as pool:
        told = {task: pool.submit(server.load, task) for task in ("broken", *new)}
        for task in new:
            told[task].result(20)
        with pytest.raises(RequestRefused, match=r"\(400\): Model 'broken' was not loaded, and nothing has changed"):
            told["broken"].result(20)
    for reply in ask(server, ALL_TASKS):
        reply.check(**FAMILY, **new)
    for task, seed in new.items():
        for reply in ask(server, task):
            reply.check(**{task: seed})
    assert {reply.status for reply in ask(server, "broken")} == {404, "NOT_FOUND"}
    assert "asked for one by one" not in caplog.text
    for triton in pair.tritons:
        assert told_to(triton.grpc_url, "not_ready", [*new, ALL_TASKS]) == []


def told_to(url: str, method: str, *arguments: object) -> object:
    """Return what the Triton at `url` answers to a `method` of TritonServer."""

    async def tell() -> object:
        (address,) = parse_urls(url)
        triton = TritonServer(address)
        try:
            return await getattr(triton, method)(*arguments)
        finally:
            await triton.aclose()

    return asyncio.run(tell())


def test_one_killed_costs_nothing_both_are_said_at_once_and_one_that_returns_is_used(server: Served, pair: Pair) -> None:
    with Load(clients_of(server, "still", ALL_TASKS)) as load:
        load.go_on()
        pair.kill(0)
        load.go_on()
        server.uses(1)
        load.go_on()
    for reply in load.all():
        assert reply.is_ok, reply
    with Load(clients_of(server, "still")) as load:
        load.go_on()
        pair.kill(1)
        server.uses(0)
        load.go_on(20)  # refused at once: a hang would take all of the 20 seconds that they wait
    for seen in load.replies:
        assert {reply.status for reply in seen} in ({200, 503}, {"OK", "UNAVAILABLE"})
        refused = [reply for reply in seen if not reply.is_ok]
        assert {(reply.sentence, reply.retry_after) for reply in refused} == {(str(EngineDown()), "1")}
    pair.start()
    server.uses(2)
    for _ in range(2):
        for reply in ask(server, ALL_TASKS):
            reply.check(**FAMILY)


def test_a_model_that_is_gone_takes_its_task_with_it_and_no_other(server: Served, folder: Path, pair: Pair) -> None:
    model = head("moving", MOVING)
    config, files = KeptModels(read_repository(folder), [model])(model)
    for triton in pair.tritons:
        for reply in ask(server, ALL_TASKS):  # whether it is gone nowhere or from the first
            reply.check(**FAMILY)
        told_to(triton.grpc_url, "unload", model)
    reason = f"Triton does not serve model {model!r} at the moment."
    for reply in ask(server, ALL_TASKS, partial_results=True):
        reply.check(still=STILL)
        assert reply.errors == {"moving": reason}
    for name in ("moving", ALL_TASKS):
        for reply in ask(server, name):
            assert (reply.status in (503, "UNAVAILABLE"), reply.sentence) == (
                True,
                f"Task 'moving' could not be computed: {reason}",
            )
    for reply in ask(server, "still"):
        reply.check(still=STILL)
    for triton in pair.tritons:
        told_to(triton.grpc_url, "load", model, config, files)
    for reply in [*ask(server, ALL_TASKS, partial_results=True), *ask(server, ALL_TASKS)]:
        reply.check(**FAMILY)
        assert reply.errors == {}


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file is there, the heads of gated tasks compute nothing."""
    return tmp_path_factory.mktemp("gate") / "closed"


@pytest.fixture
def gated(folder: Path, gate: Path) -> Path:
    """A repository with a task `gated` beside the others."""
    write_task(folder, "gated", GATED)
    set_gate(folder, head("gated", GATED), gate)
    return folder


def test_a_queue_that_is_full_in_triton_is_said_and_what_waits_is_answered(pair: Pair, folder: Path, gate: Path) -> None:
    write_task(folder, "narrow", 41)
    set_gate(folder, head("narrow", 41), gate)
    path = folder / head("narrow", 41) / "config.pbtxt"
    config = parse_text(path.read_text(), "narrow")
    config.dynamic_batching.default_queue_policy.max_queue_size = 2
    path.write_text(to_text(config))
    with Served(folder, pair.tritons[0].grpc_url) as server, ThreadPoolExecutor(16) as pool:
        with closed(gate):
            asked = [pool.submit(ask_by, connect, server, "narrow") for connect in (HttpClient, GrpcClient) for _ in range(8)]
            for half in (asked[:8], asked[8:]):
                wait_for(lambda half=half: any(one.done() for one in half))  # type: ignore[misc]  # refused, as nothing is computed
        replies = [one.result(20) for one in asked]
    refused = [reply for reply in replies if not reply.is_ok]
    assert {(reply.status, reply.retry_after) for reply in refused} == {(429, "1"), ("RESOURCE_EXHAUSTED", "1")}
    assert {reply.sentence for reply in refused} == {"Too many requests wait in Triton; try again later."}
    answered = [reply for reply in replies if reply.is_ok]
    assert len(answered) >= 2
    for reply in answered:
        reply.check(narrow=41)


def test_a_queue_that_is_full_here_does_not_go_to_triton(pair: Pair, gated: Path, gate: Path) -> None:
    with Served(gated, pair.tritons[0].grpc_url, max_queue_rows=7) as server, ThreadPoolExecutor(2) as pool:
        with closed(gate):
            waiting = [pool.submit(ask_by, connect, server, "gated") for connect in (HttpClient, GrpcClient)]
            wait_for(lambda: server.engine.queued_rows() == {"gated": 4})
            for reply in ask(server, "gated"):
                assert (reply.status in (429, "RESOURCE_EXHAUSTED"), reply.retry_after) == (True, "1")
                assert reply.sentence.startswith(
                    "4 rows are waiting for model 'gated', whose share of the limit of 7 has no room"
                )
            for reply in ask(server, "still"):
                reply.check(still=STILL)
        for one in waiting:
            one.result(20).check(gated=GATED)
        for reply in ask(server, "still"):
            reply.check(still=STILL)


def test_a_deadline_that_passes_in_triton_is_said_and_the_server_serves_on(pair: Pair, gated: Path, gate: Path) -> None:
    with Served(gated, pair.tritons[0].grpc_url) as server:
        with closed(gate), closing(GrpcClient(server)) as client:
            late = [*ask(server, "gated", timeout=200_000), *ask(server, ALL_TASKS, timeout=200_000)]
            assert [reply.status for reply in late] == [504, "DEADLINE_EXCEEDED"] * 2
            assert client("gated", within_s=0.2).status == "DEADLINE_EXCEEDED"
            for reply in ask(server, "still"):
                reply.check(still=STILL)
        for reply in ask(server, ALL_TASKS):
            reply.check(**FAMILY, gated=GATED)


def test_clients_that_go_away_do_no_harm_to_triton(pair: Pair, tmp_path: Path, gate: Path) -> None:
    """The trunk holds their requests back. Cancelled in Triton 24.10, it tries to end both branches of each, and itself now and then."""
    folder = write_family(tmp_path / "repo", {"left": 61, "right": 62}, trunk="trunk-gated").path
    set_gate(folder, "trunk-gated", gate)
    triton = pair.tritons[1]
    with Served(folder, triton.grpc_url) as server, ThreadPoolExecutor(1) as pool:
        with closed(gate):
            stays = pool.submit(ask_by, HttpClient, server, ALL_TASKS)
            leaving = [HttpClient(server) for _ in range(6)]
            for client in leaving:
                client.send(ALL_TASKS, 2)
            wait_for(lambda: server.engine.queued_rows() == {ALL_TASKS: 14})
            for client in leaving:
                client.close()
            wait_for(lambda: metric(server, "nv_inference_pending_request_count", ALL_TASKS) == 1)
            assert server.engine.queued_rows() == {ALL_TASKS: 14}  # until Triton has done what it works on
        for reply in [stays.result(20), *ask(server, ALL_TASKS)]:
            reply.check(left=61, right=62)
        wait_for(lambda: server.engine.queued_rows() == {})
        heads = [head("left", 61), head("right", 62)]
        assert [metric(triton, "nv_inference_request_failure", model, reason="CANCELED") for model in heads] == [0, 0]


def test_two_servers_before_two_tritons(pair: Pair, server: Served, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told of a deploy, one after the other, which costs no request; one that is killed is missed by nobody at the other."""
    monkeypatch.setenv(VARIABLE, TOKEN)
    options = ["--engine", "triton", "--triton-url", pair.urls, "--triton-send-files", "--http-port", "0", "--grpc-port", "0"]
    with started("-m", "espalier.cli", "serve", str(folder), *options) as other:
        servers = (other, server)
        live = [espalier.Client(f"http://{one.http_address}", TOKEN) for one in servers]
        with Load([client for one in servers for client in clients_of(one, "still", "moving")]) as load:
            load.go_on()
            write_task(folder, "moving", MOVING + 1, 2)
            for one in live:
                notify([one], ["moving"], "load", changed="", undo_hint="")
                load.go_on()
        for reply in load.all():
            assert reply.is_ok, reply
        for told in servers:
            for reply in ask(told, ALL_TASKS):
                reply.check(still=STILL, moving=MOVING + 1)
        notify(live, ["moving"], "unload", changed="", undo_hint="")
        for told in servers:
            for reply in ask(told, ALL_TASKS):
                reply.check(still=STILL)
        with Load(clients_of(server, "still", ALL_TASKS)) as load:
            load.go_on()
            other.process.kill()
            other.process.wait(20)
            load.go_on()
        for reply in load.all():
            reply.check(still=STILL)
