"""Clients that send half a message, or take no answer: they hold memory for a bounded time, and it is counted."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.repository import Repository
from serving.limits import Limits
from serving.protocol.grpc.stalled import shut_down
from serving.protocol.message_limits import MessageLimits
from serving.server import BackgroundServer
from tests.serving.nets import images
from tests.serving.protocol.grpc.raw_grpc import TAKEN_BYTES, RawCall
from tests.serving.protocol.grpc.test_cost import refusals
from tests.serving.protocol.held_requests import wait_for

pb: Any = service_pb2
SERVICE = "/inference.GRPCInferenceService/"
DESCRIPTORS = Path("/proc/self/fd")
ROWS = 300  # whose answer of 4,800 bytes is beyond what the client takes


@pytest.fixture(scope="module")
def hasty(repository: Repository) -> Iterator[BackgroundServer]:
    """A server that waits a second for the network."""
    with BackgroundServer(
        repository.path, http_port=0, grpc_port=0, threads=1, limits=Limits(messages=MessageLimits(stalled_s=1.0))
    ) as server:
        yield server


def pending(server: BackgroundServer) -> int:
    with closing(http.client.HTTPConnection(server.http_address, timeout=20)) as connection:
        connection.request("GET", "/metrics")
        found = re.search(rb"^espalier_pending_bytes (\S+)$", connection.getresponse().read(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def request(rows: int = 1, model: str = "late") -> bytes:
    message = pb.ModelInferRequest(model_name=model, raw_input_contents=[images(rows).tobytes()])
    message.inputs.add(name="image", datatype="UINT8", shape=[rows, 8, 8, 3])
    return bytes(message.SerializeToString())


@pytest.mark.parametrize("method", ["ModelInfer", "ServerMetadata"])
@pytest.mark.parametrize("data", [b"", b"x" * 100])
def test_a_message_that_does_not_come_to_its_end_is_given_up(hasty: BackgroundServer, method: str, data: bytes) -> None:
    before = refusals(hasty, "stalled")
    with RawCall(hasty.grpc_port, SERVICE + method, data, 1000) as call:
        assert call.until_end() == 0
    assert refusals(hasty, "stalled") == before + 1


def test_half_a_watch_is_given_up(hasty: BackgroundServer) -> None:
    with RawCall(hasty.grpc_port, "/grpc.health.v1.Health/Watch", b"", 1000) as call:
        assert call.until_end() == 0


def test_a_call_without_a_message_is_refused(hasty: BackgroundServer) -> None:
    with grpc.insecure_channel(hasty.grpc_address) as channel:
        with pytest.raises(grpc.RpcError, match="cannot be decoded") as caught:
            channel.stream_unary(SERVICE + "ModelInfer")(iter([]), timeout=20)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_an_answer_that_nobody_takes_is_counted_and_ends_with_its_connection(hasty: BackgroundServer, method: str) -> None:
    before = refusals(hasty, "stalled")
    with RawCall(hasty.grpc_port, SERVICE + method, request(ROWS)) as call:
        wait_for(lambda: 4800 < pending(hasty) < 6000)  # the answer, and its request no longer
        assert 0 < call.until_end() <= TAKEN_BYTES
    wait_for(lambda: pending(hasty) == 0)
    assert refusals(hasty, "stalled") == before + 1


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_a_client_that_goes_in_the_midst_of_its_answer_is_no_news(
    hasty: BackgroundServer, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with RawCall(hasty.grpc_port, SERVICE + method, request(ROWS)):
        wait_for(lambda: 4800 < pending(hasty) < 6000)
    wait_for(lambda: pending(hasty) == 0)
    assert caplog.text == ""


def test_calls_are_bounded_and_their_places_come_back(repository: Repository) -> None:
    limits = Limits(messages=MessageLimits(calls=2))
    with (
        BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1, limits=limits) as server,
        grpc.insecure_channel(server.grpc_address) as channel,
    ):
        infer = channel.unary_unary(SERVICE + "ModelInfer")

        def refusal() -> str:
            try:
                infer(request(), timeout=20)
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"  # type: ignore[attr-defined]
            return ""

        def are_bounded() -> bool:
            """Whether there are two calls, none of which was refused itself because ours was there, and ours is one too many."""
            with (
                RawCall(server.grpc_port, SERVICE + "ModelInfer", b"x", 1000),
                RawCall(server.grpc_port, SERVICE + "ServerMetadata", b"x", 1000),
            ):
                time.sleep(0.1)
                return refusal() == "RESOURCE_EXHAUSTED: 2 calls are waiting and 2 is the limit; try again later."

        for _ in range(2):
            wait_for(are_bounded)
            wait_for(lambda: refusal() == "")
        assert refusals(server, "calls") >= 2


def test_a_stream_that_waits_for_its_client_is_not_ended(hasty: BackgroundServer) -> None:
    before = refusals(hasty, "stalled")

    def requests() -> Iterator[Any]:
        yield pb.ModelInferRequest.FromString(request(ROWS))
        time.sleep(1.5)
        yield pb.ModelInferRequest.FromString(request(ROWS))

    with grpc.insecure_channel(hasty.grpc_address) as channel:
        answers = list(service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(requests(), timeout=20))
        assert [answer.error_message for answer in answers] == ["", ""]
    assert refusals(hasty, "stalled") == before
    assert pending(hasty) == 0


@pytest.mark.parametrize(
    ("family", "host", "peer"),
    [
        (socket.AF_INET, "127.0.0.1", "ipv4:127.0.0.1"),
        (socket.AF_INET6, "::1", "ipv6:%5B::1%5D"),
    ],
)
def test_a_connection_is_found_by_its_peer_and_no_other_is_touched(family: int, host: str, peer: str) -> None:
    with socket.create_server((host, 0), family=family) as listener:
        pairs = []
        for _ in range(2):
            client = socket.create_connection(listener.getsockname()[:2], timeout=20)
            pairs.append((client, listener.accept()[0]))
        descriptors = len([*DESCRIPTORS.iterdir()])
        shut_down([f"{peer}:{pairs[0][0].getsockname()[1]}", "unix:"])
        assert len([*DESCRIPTORS.iterdir()]) <= descriptors  # other tests' servers may just be closing theirs
        assert pairs[0][0].recv(1) == b""
        pairs[1][1].sendall(b"x")
        assert pairs[1][0].recv(1) == b"x"
        for client, server in pairs:
            client.close()
            server.close()
