"""The standard gRPC health service, and the settings that clients may read but not change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import grpc
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from contract.repository import ALL_TASKS, Repository
from serving.engines.in_memory import InMemoryEngine
from serving.server import BackgroundServer, Server
from tests.serving.nets import LAYERS

Request, Status = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse


@pytest.fixture
def stub(server: BackgroundServer) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc_address) as channel:
        yield health_pb2_grpc.HealthStub(channel)


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "late", ALL_TASKS, "trunk"])
def test_the_server_and_its_models_are_serving(stub: Any, service: str) -> None:
    assert stub.Check(Request(service=service)).status == Status.SERVING
    watched = stub.Watch(Request(service=service))
    assert next(watched).status == Status.SERVING
    watched.cancel()


def test_what_is_not_there_is_unknown(stub: Any) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(Request(service="cats"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    watched = stub.Watch(Request(service="cats"))
    assert next(watched).status == Status.SERVICE_UNKNOWN
    watched.cancel()


class Slow(InMemoryEngine):
    """Loads when it is told to, and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(LAYERS)
        self.loaded = asyncio.Event()

    async def start(self) -> None:
        await self.loaded.wait()
        await super().start()


def test_watching_follows_the_server_from_loading_to_the_end(repository: Repository) -> None:
    async def work() -> None:
        engine = Slow()
        server = Server(repository, engine, http_port=0, grpc_port=0, grace_s=600)  # of which nothing is needed
        starting = asyncio.create_task(server.start())
        while server.grpc_port == 0:
            await asyncio.sleep(0.01)
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            check = await stub.Check(Request(), wait_for_ready=True)
            assert check.status == Status.NOT_SERVING
            assert (await stub.Check(Request(service="late"))).status == Status.NOT_SERVING
            watched = {name: stub.Watch(Request(service=name)) for name in ("", "late", "cats")}
            assert [(await call.read()).status for call in watched.values()] == [
                Status.NOT_SERVING,
                Status.NOT_SERVING,
                Status.SERVICE_UNKNOWN,
            ]
            engine.loaded.set()
            await starting
            assert (await watched[""].read()).status == Status.SERVING
            assert (await watched["late"].read()).status == Status.SERVING
            closing = asyncio.create_task(server.aclose())
            assert (await watched[""].read()).status == Status.NOT_SERVING
            assert (await watched["late"].read()).status == Status.NOT_SERVING
            for call in watched.values():  # and the streams end, so that the server need not wait for them
                assert await call.code() == grpc.StatusCode.UNAVAILABLE
            await closing

    asyncio.run(work())


@pytest.fixture(params=[tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: BackgroundServer) -> Iterator[Any]:
    is_http = request.param is tritonclient.http
    with request.param.InferenceServerClient(server.http_address if is_http else server.grpc_address) as made:
        made.options = {} if is_http else {"as_json": True}
        yield made


def test_settings_can_be_read(client: Any) -> None:
    log = client.get_log_settings(**client.options)
    trace = client.get_trace_settings(**client.options)
    per_model = client.get_trace_settings("late", **client.options)
    if client.options:
        log = {name: next(iter(value.values())) for name, value in log["settings"].items()}
        per_model = {name: value["value"] for name, value in per_model["settings"].items()}
        trace = {name: value["value"] for name, value in trace["settings"].items()}
        assert trace["trace_rate"] == ["1000"]
    else:
        assert trace["trace_rate"] == "1000"
    assert (log["log_file"], log["log_error"], int(log["log_verbose_level"]), log["log_format"]) == ("", True, 0, "default")
    assert trace["trace_level"] == ["OFF"]
    assert per_model == trace
    assert client.update_log_settings({}, **client.options)  # nothing to change


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("update_log_settings", {"settings": {"log_verbose_level": 1}}),
        ("update_trace_settings", {"settings": {"trace_level": ["TIMESTAMPS"]}}),
        ("update_trace_settings", {"settings": {"trace_rate": None}, "model_name": "late"}),
    ],
)
def test_settings_are_fixed(client: Any, method: str, options: dict[str, Any]) -> None:
    with pytest.raises(
        InferenceServerException, match="settings are fixed while the server runs; start it with others"
    ) as caught:
        getattr(client, method)(**options)
    assert caught.value.status() in ("501", "StatusCode.UNIMPLEMENTED")


def test_settings_of_an_unknown_model(client: Any) -> None:
    for method, options in (("get_trace_settings", {}), ("update_trace_settings", {"settings": {}})):
        with pytest.raises(InferenceServerException, match="Unknown model 'cats'"):
            getattr(client, method)(model_name="cats", **options)


@pytest.mark.parametrize("module", [tritonclient.http.aio, tritonclient.grpc.aio], ids=["http", "grpc"])
def test_the_asynchronous_clients_read_settings(module: ModuleType, server: BackgroundServer) -> None:
    async def work() -> None:
        address = server.http_address if module is tritonclient.http.aio else server.grpc_address
        async with module.InferenceServerClient(address) as client:
            assert "log_format" in json.dumps(str(await client.get_log_settings()))
            assert "trace_level" in json.dumps(str(await client.get_trace_settings("late")))
            with pytest.raises(InferenceServerException, match="settings are fixed"):
                await client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]})

    asyncio.run(work())
