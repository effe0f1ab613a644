"""Loading and unloading tasks over both protocols: who may, what follows, and what a failure changes."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from contract.repository import ALL_TASKS, Repository
from serving.engines.in_memory import InMemoryEngine
from serving.server import BackgroundServer
from tests.serving.nets import CHAINS, LAYERS, TASK_NAMES, images, whole, write_repository
from tests.serving.protocol.held_requests import wait_for
from tests.serving.protocol.http.test_http import PICTURE, Http
from tests.serving.protocol.test_protocols import Client

pytestmark = pytest.mark.slow  # as a whole: the fast part of the suite is to stay under a minute

TOKEN = "s3cret"
MODULES = [tritonclient.http, tritonclient.grpc]


class Controller(Client):
    """A client of tritonclient that has a token, or none."""

    def __init__(self, module: ModuleType, server: BackgroundServer, token: str | None = TOKEN) -> None:
        super().__init__(module, server)
        self.headers = None if token is None else {"authorization": f"Bearer {token}"}

    def load(self, name: str) -> None:
        self.client.load_model(name, headers=self.headers)

    def unload(self, name: str) -> None:
        self.client.unload_model(name, headers=self.headers)

    def index(self) -> set[str]:
        found = self.ask("get_model_repository_index")
        return {entry["name"] for entry in (found if self.is_http else found["models"]) if entry["state"] == "READY"}

    def is_ready(self, model: str) -> bool:
        return bool(self.client.is_model_ready(model))

    def refusal(self, action: str, name: str) -> tuple[str, str]:
        """Return the status and the sentence with which `action` is refused."""
        with pytest.raises(InferenceServerException) as caught:
            getattr(self, action)(name)
        return str(caught.value.status()), str(caught.value.message())


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    write_repository(tmp_path / "repo")
    return tmp_path / "repo"


@pytest.fixture
def own(repo: Path) -> Iterator[BackgroundServer]:
    """A server of its own, on the embedded engine, on a repository that may be changed."""
    with BackgroundServer(repo, http_port=0, grpc_port=0, threads=1, admin_token=TOKEN) as server:
        yield server


@pytest.fixture(scope="module")
def shared_server(repository: Repository) -> Iterator[BackgroundServer]:
    """With a token, for requests that change nothing."""
    with BackgroundServer(repository.path, InMemoryEngine(LAYERS), http_port=0, grpc_port=0, admin_token=TOKEN) as server:
        yield server


@pytest.fixture
def shared(shared_server: BackgroundServer) -> Iterator[Http]:
    http = Http(shared_server)
    yield http
    http.connection.close()


@pytest.fixture(params=MODULES, ids=["http", "grpc"])
def controller(request: pytest.FixtureRequest, own: BackgroundServer) -> Iterator[Controller]:
    made = Controller(request.param, own)
    yield made
    made.client.close()


def check_answers(client: Client, *tasks: str) -> None:
    for task in tasks:
        np.testing.assert_allclose(client.infer(task, images(2)).as_numpy(task), whole(task, images(2)), rtol=1e-4, atol=1e-5)


def test_everything_follows_what_is_loaded(controller: Controller, own: BackgroundServer) -> None:
    http = Http(own)
    with grpc.insecure_channel(own.grpc_address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="late"))
        assert http("GET", "/openapi.json")[0] == 200

        def check(tasks: set[str]) -> None:
            segments = {segment for task in tasks for segment in CHAINS[task]}
            assert controller.index() == {*tasks, *segments, ALL_TASKS}
            assert {name for name in (*TASK_NAMES, *LAYERS) if controller.is_ready(name)} == tasks | segments
            found = controller.ask("get_model_metadata", ALL_TASKS)
            assert {output["name"] for output in found["outputs"]} == tasks
            assert {task["name"] for task in http("GET", "/tasks")[1]["tasks"]} == tasks
            assert http("POST", "/predict", PICTURE)[1]["tasks"].keys() == tasks
            assert next(watch).status == (1 if "late" in tasks else 3)  # SERVING or SERVICE_UNKNOWN
            example = http("GET", "/openapi.json")[1]["paths"]["/predict/{task}"]["post"]["parameters"][0]["example"]
            assert example in tasks
            check_answers(controller, *tasks)

        check({*TASK_NAMES})
        for name in ("late", "colour"):  # colour is the first, which the documentation shows
            controller.unload(name)
        check({"probe", "parity"})
        assert controller.client.is_server_ready()
        with pytest.raises(InferenceServerException) as caught:
            controller.infer("late", images(1))
        assert caught.value.status() == controller.status("404", "NOT_FOUND")
        controller.load("late")
        check({"probe", "parity", "late"})
        controller.load(ALL_TASKS)
        controller.load("late")  # as it is already
        assert controller.index() == {*TASK_NAMES, *LAYERS, ALL_TASKS}
        check_answers(controller, *TASK_NAMES)
    http.connection.close()


@pytest.mark.parametrize("module", MODULES, ids=["http", "grpc"])
def test_who_may_not(module: ModuleType, own: BackgroundServer) -> None:
    for token, codes, words in (
        (None, ("401", "UNAUTHENTICATED"), "needs the token of this server, as `Authorization: Bearer TOKEN`"),
        ("", ("401", "UNAUTHENTICATED"), "needs the token"),
        ("s3cre", ("403", "PERMISSION_DENIED"), "The token is not this server's."),
        ("S3CRET", ("403", "PERMISSION_DENIED"), "The token is not this server's."),
    ):
        client = Controller(module, own, token)
        for action in ("load", "unload"):
            for name in ("late", "cats", "trunk"):  # who has no token does not learn what there is
                status, sentence = client.refusal(action, name)
                assert (status, words in sentence) == (client.status(*codes), True)
        check_answers(client, "late")
        client.client.close()


@pytest.mark.parametrize("module", MODULES, ids=["http", "grpc"])
def test_without_a_token_of_its_own_the_server_offers_no_control(module: ModuleType, server: BackgroundServer) -> None:
    for token in (None, "", TOKEN):
        client = Controller(module, server, token)
        for action in ("load", "unload"):
            status, sentence = client.refusal(action, "late")
            assert status == client.status("501", "UNIMPLEMENTED")
            assert "was started without an admin token" in sentence
        client.client.close()


def test_names_that_are_refused(controller: Controller) -> None:
    unknown, invalid = controller.status("404", "NOT_FOUND"), controller.status("400", "INVALID_ARGUMENT")
    for action in ("load", "unload"):
        status, sentence = controller.refusal(action, "cats")
        assert (status, sentence) == (unknown, "Unknown model 'cats'; known are: colour, late, parity, probe.")
        status, sentence = controller.refusal(action, "trunk")
        assert (status, "Model 'trunk' is no task" in sentence) == (invalid, True)
    assert controller.refusal("unload", ALL_TASKS)[0] == invalid
    for task in TASK_NAMES[:-1]:
        controller.unload(task)
        assert controller.refusal("unload", task)[0] == unknown
    status, sentence = controller.refusal("unload", TASK_NAMES[-1])
    assert (status, "is the last one that is served" in sentence) == (invalid, True)
    check_answers(controller, TASK_NAMES[-1])


def test_what_a_load_or_unload_asks_for_beyond_the_disk_is_refused(controller: Controller, own: BackgroundServer) -> None:
    headers, before = controller.headers, controller.index()
    for options in ({"config": "{}"}, {"config": "{}", "files": {"file:1/model.onnx": b"\0" * 100_000}}):
        with pytest.raises(InferenceServerException, match="what is loaded is what the repository on disk says") as caught:
            controller.client.load_model("late", headers=headers, **options)
        assert caught.value.status() == controller.status("501", "UNIMPLEMENTED")
    controller.client.unload_model("late", headers=headers, unload_dependents=True)
    assert controller.index() == before - {"late", "branch-late"}
    controller.load("late")
    assert controller.index() == before


@pytest.mark.parametrize(
    ("action", "body", "expected"),
    [
        ("load", b"{", (400, "not JSON")),
        ("load", b"[]", (400, "not an object")),
        ("load", b'{"parameters": 1}', (400, "'parameters' that is not an object")),
        ("load", b'{"parameters": {"confg": "{}"}}', (400, "A load has no parameter 'confg'")),
        ("load", b'{"config": "{}"}', (400, "has a member 'config'; it takes 'parameters' alone")),
        ("load", b'{"parameters": {"file:1/model.onnx": "AA=="}}', (501, "A load takes neither 'config' nor 'file:' parameters")),
        ("load", b"", (200, "")),
        ("load", b"{}", (200, "")),
        ("load", b'{"parameters": null}', (200, "")),
        ("load", b'{"parameters": {"config": null}}', (200, "")),
        ("unload", b"{", (400, "not JSON")),
        ("unload", b'{"parameters": {"unload_dependents": 1}}', (400, "'unload_dependents' is 1; give true or false")),
        ("unload", b'{"parameters": {"force": true}}', (400, "An unload has no parameter 'force'")),
    ],
)
def test_bodies_of_loads_and_unloads(shared: Http, action: str, body: bytes, expected: tuple[int, str]) -> None:
    status, answer = shared("POST", f"/v2/repository/models/late/{action}", body, authorization=f"Bearer {TOKEN}")
    assert (status, expected[1] in answer.get("error", "")) == (expected[0], True)


def test_parameters_of_loads_and_unloads_over_grpc(shared_server: BackgroundServer) -> None:
    metadata = [("authorization", f"Bearer {TOKEN}")]
    with grpc.insecure_channel(shared_server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        load, unload = service_pb2.RepositoryModelLoadRequest, service_pb2.RepositoryModelUnloadRequest
        for call, request, parameter, code in (
            (stub.RepositoryModelLoad, load(model_name="late"), {"other": {"int64_param": 1}}, "INVALID_ARGUMENT"),
            (stub.RepositoryModelLoad, load(model_name="late"), {"file:1/model.onnx": {"bytes_param": b"x"}}, "UNIMPLEMENTED"),
            (stub.RepositoryModelLoad, load(model_name="late", repository_name="there"), {}, "UNIMPLEMENTED"),
            (
                stub.RepositoryModelUnload,
                unload(model_name="late"),
                {"unload_dependents": {"string_param": "yes"}},
                "INVALID_ARGUMENT",
            ),
            (stub.RepositoryModelLoad, load(model_name="late"), {"config": {}}, None),  # a parameter without a value
        ):
            for name, choice in parameter.items():
                request.parameters[name].SetInParent()
                for field, value in choice.items():
                    setattr(request.parameters[name], field, value)
            if code is None:
                call(request, metadata=metadata)
                continue
            with pytest.raises(grpc.RpcError) as caught:
                call(request, metadata=metadata)
            assert caught.value.code().name == code


def damage(repo: Path, how: str) -> None:
    model = repo / "branch-late/1/model.onnx"
    if how == "truncated":
        model.write_bytes(model.read_bytes()[:150])
    elif how == "another shape":
        model.write_bytes((repo / "suffix/1/model.onnx").read_bytes())
    elif how == "no model":
        model.unlink()
    elif how == "damaged config":
        (repo / "late/config.pbtxt").write_bytes(b"\xff\x00")
    else:
        shutil.rmtree(repo)


HOW = ["truncated", "another shape", "no model", "damaged config", "gone"]


@pytest.mark.parametrize("how", HOW)
def test_a_load_that_fails_changes_nothing_and_tells_no_path(controller: Controller, repo: Path, how: str) -> None:
    controller.unload("late")
    before = controller.index()
    spare = shutil.copytree(repo, repo.parent / "spare")
    damage(repo, how)
    status, sentence = controller.refusal("load", "late")
    assert status == controller.status("400", "INVALID_ARGUMENT")
    assert sentence.startswith("Model 'late' was not loaded, and nothing has changed: ")
    assert str(repo.parent) not in sentence
    assert controller.index() == before
    check_answers(controller, "probe", "colour", "parity")
    shutil.rmtree(repo, ignore_errors=True)
    spare.rename(repo)
    controller.load("late")
    check_answers(controller, *TASK_NAMES)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_fails_the_load_only(controller: Controller, repo: Path) -> None:
    (repo / "late").chmod(0)
    try:
        status, sentence = controller.refusal("load", "late")
    finally:
        (repo / "late").chmod(0o700)
    assert (status, str(repo.parent) in sentence) == (controller.status("400", "INVALID_ARGUMENT"), False)
    check_answers(controller, "late")


@pytest.mark.parametrize("module", MODULES, ids=["http", "grpc"])
def test_two_servers_on_one_repository_go_their_own_ways(module: ModuleType, own: BackgroundServer, repo: Path) -> None:
    with BackgroundServer(repo, http_port=0, grpc_port=0, threads=1, admin_token="another") as second:
        clients = Controller(module, own), Controller(module, second, "another")
        clients[0].unload("late")
        check_answers(clients[1], *TASK_NAMES)
        clients[1].unload("probe")
        assert "probe" in clients[0].index()
        assert "late" in clients[1].index()
        clients[0].load("late")
        clients[1].load("probe")
        for client in clients:
            check_answers(client, *TASK_NAMES)
            client.client.close()


class SlowToLoad(InMemoryEngine):
    """Opens segments when it is told to."""

    def __init__(self) -> None:
        super().__init__(LAYERS)
        self.loads = 0
        self.finished = 0
        self.go_on = threading.Event()

    async def load(self, repository: Repository) -> None:
        self.loads += 1
        await asyncio.to_thread(self.go_on.wait, 20)
        self.finished += 1


def test_a_change_that_has_begun_is_finished_though_nobody_waits(repo: Path) -> None:
    """Else what it has opened would belong to nobody, and stay open for ever."""
    engine = SlowToLoad()
    with BackgroundServer(repo, engine, http_port=0, grpc_port=0, admin_token=TOKEN) as server:
        with grpc.insecure_channel(server.grpc_address) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            metadata = [("authorization", f"Bearer {TOKEN}")]
            call = stub.RepositoryModelUnload.future(
                service_pb2.RepositoryModelUnloadRequest(model_name="late"), metadata=metadata
            )
            wait_for(lambda: engine.loads == 1)
            call.cancel()
        client = Controller(tritonclient.grpc, server)
        check_answers(client, "late")  # requests go on meanwhile
        engine.go_on.set()
        wait_for(lambda: "late" not in client.index())
        assert engine.finished == 1
        client.load("late")
        check_answers(client, *TASK_NAMES)
        client.client.close()
