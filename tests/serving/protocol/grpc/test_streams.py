"""What streams cost, and how many there may be: nothing while they are idle, and a bounded number."""

from __future__ import annotations

import queue
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.repository import Repository
from contract.repository.model import TensorSpec
from serving.catalog import Model
from serving.limits import Limits
from serving.protocol.grpc.health import MAX_NAME_CHARS
from serving.protocol.grpc.server import max_connections, needed_bytes
from serving.protocol.message_limits import MessageLimits
from serving.server import BackgroundServer
from tests.processor_time import without_collecting
from tests.serving.nets import images
from tests.serving.protocol.grpc.test_cost import processor_s, refusals
from tests.serving.protocol.held_requests import wait_for

pb: Any = service_pb2
Request, Status = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
IDLE_STREAMS = 100


@contextmanager
def served(repository: Repository, **options: Any) -> Iterator[tuple[BackgroundServer, threading.Thread]]:
    """A server, and the thread of its event loop."""
    others = {*threading.enumerate()}
    with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1, **options) as server:
        (loop,) = {thread for thread in threading.enumerate() if thread.name == "espalier-server"} - others
        yield server, loop


def message() -> Any:
    request = pb.ModelInferRequest(model_name="late", raw_input_contents=[images(1).tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=[1, 8, 8, 3])
    return request


class Stream:
    """An open stream of requests, which has had its first answer."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.requests.put(message())
        self.call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(self.requests.get, None))
        assert not next(self.call).error_message

    def end(self) -> None:
        self.requests.put(None)
        assert list(self.call) == []


class Watch:
    """An open stream of a status, which has had its first answer. name: of the service."""

    def __init__(self, channel: grpc.Channel, name: str = "") -> None:
        self.call = health_pb2_grpc.HealthStub(channel).Watch(Request(service=name))
        assert next(self.call).status == Status.SERVING

    def end(self) -> None:
        self.call.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Stream, Watch])
def test_idle_streams_cost_the_loop_nothing(repository: Repository, kind: Callable[..., Any]) -> None:
    with served(repository) as (server, loop), grpc.insecure_channel(server.grpc_address) as channel:
        streams = [kind(channel) for _ in range(IDLE_STREAMS)]
        assert any(takes_s(loop) < 0.03 for _ in range(5))  # where each asks ten times a second, they take 0.06 to 0.2
        for stream in streams:
            stream.end()


def takes_s(loop: threading.Thread) -> float:
    """Return the processor time of a thread in a second."""
    with without_collecting():
        before = processor_s(loop)
        time.sleep(1)
        return processor_s(loop) - before


def test_a_watcher_who_comes_late_has_the_status_of_now_and_all_hear_of_changes(repository: Repository) -> None:
    with served(repository, admin_token="t") as (server, _), grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        watches = [Watch(channel, "late") for _ in range(2)]
        metadata = [("authorization", "Bearer t")]
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="late"), metadata=metadata)
        assert [next(watch.call).status for watch in watches] == [Status.SERVICE_UNKNOWN] * 2
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="late"), metadata=metadata)
        watches.append(Watch(channel, "late"))
        assert [next(watch.call).status for watch in watches[:2]] == [Status.SERVING] * 2
        for watch in watches:
            watch.end()


def test_streams_of_both_kinds_are_bounded_together_and_their_places_come_back(repository: Repository) -> None:
    with (
        served(repository, limits=Limits(messages=MessageLimits(streams=3))) as (server, _),
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        streams = [Stream(channel), Watch(channel), Stream(channel)]
        for kind in (Stream, Watch):
            with pytest.raises(grpc.RpcError, match="3 streams are waiting and 3 is the limit") as caught:
                kind(channel)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
        assert refusals(server, "streams") == 2
        assert service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message()).model_name == "late"  # calls go on
        for stream in streams:
            stream.end()

        def three_again() -> bool:
            try:
                streams[:] = [Stream(channel) for _ in range(3)]
            except grpc.RpcError:
                return False
            return True

        wait_for(three_again)


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_long_names_of_services_are_refused(server: BackgroundServer, method: str) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        before = refusals(server, "names")
        ask = stub.Check if method == "Check" else lambda request: next(stub.Watch(request))
        with pytest.raises(grpc.RpcError, match=f"the limit is {MAX_NAME_CHARS}") as caught:
            ask(Request(service="x" * (MAX_NAME_CHARS + 1)))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
        assert refusals(server, "names") == before + 1


def test_headers_are_bounded(server: BackgroundServer) -> None:
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(pb.ServerLiveRequest(), metadata=[("x", "y" * 4000)]).live
        with pytest.raises(grpc.RpcError, match="metadata size exceeds") as caught:
            stub.ServerLive(pb.ServerLiveRequest(), metadata=[("x", "y" * 40_000)])
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def test_a_message_may_have_what_the_models_need_and_no_more() -> None:
    specs = {size: TensorSpec("x", "FP32", (size,)) for size in (1, 2048, 10**6)}

    def needed(*specs: TensorSpec) -> int:
        model = Model("m", "1", "", specs, {}, 1, ("1",))
        return needed_bytes([model, Model("n", "1", "", (), {}, 1, ("1",))])

    assert needed() == needed(specs[1]) == 4 * 2**20
    assert needed(specs[1], specs[2048]) == 1024 * 4 * 2049
    for dear in (specs[10**6], TensorSpec("x", "BYTES", (1,)), TensorSpec("x", "UINT8", (-1,)), TensorSpec("x", "BF16", (1,))):
        assert needed(dear) == 24 * 2**20


@pytest.mark.parametrize(("options", "limit"), [({}, 4 * 2**20), ({"max_message_bytes": 6000}, 6000)])
def test_messages_beyond_it_are_refused_by_grpc_packed_or_not(
    repository: Repository, options: dict[str, int], limit: int
) -> None:
    request = message()
    request.raw_input_contents[0] = bytes(limit)
    with served(repository, **options) as (server, _), grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            with pytest.raises(grpc.RpcError, match="larger than max") as caught:
                stub.ModelInfer(request, compression=compression)
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
        assert stub.ModelInfer(message()).model_name == "late"


def test_connections_are_bounded_and_leave_descriptors_for_others(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 1 <= max_connections() <= resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4
    monkeypatch.setattr("serving.protocol.grpc.server.max_connections", lambda: 3)
    with served(repository) as (server, _):
        connections = [socket.create_connection(("127.0.0.1", server.grpc_port), timeout=20) for _ in range(8)]
        wait_for(lambda: sum(is_closed(connection) for connection in connections) >= 4)
        assert not all(is_closed(connection) for connection in connections)
        for connection in connections:
            connection.close()


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed it, or has never wanted it; what it has said is thrown away."""
    connection.setblocking(False)
    try:
        while connection.recv(1000):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True
