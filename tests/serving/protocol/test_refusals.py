"""Every limit that strikes is counted once, wherever it does, and says so."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.errors import EspalierError
from contract.repository import Repository
from serving.server import BackgroundServer
from tests.serving.nets import images
from tests.serving.protocol.held_requests import wait_for

pb: Any = service_pb2
DOCS = Path(__file__).parents[3] / "docs" / "reference" / "limits.md"
IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 3]}
MANY = 1 << 17


def body(**changes: Any) -> bytes:
    return json.dumps({"inputs": [IMAGE | {"data": images(1).ravel().tolist()} | changes]}).encode()


BODIES = {
    "body": bytes(70_000_000),
    "objects": b'{"inputs":[' + b",".join([b"{}"] * (MANY + 1)) + b"]}",
    "names": body(name="n" * MANY),
    "values": body(data=[]).replace(b"[]", b"[" + b"1" * MANY + b"]"),
    "strings": body(datatype="BYTES", shape=[MANY + 1], data=["a"] * (MANY + 1)),
}


@pytest.fixture(scope="module")
def own(repository: Repository) -> Iterator[BackgroundServer]:
    """A server that others do not ask at the same time."""
    with BackgroundServer(repository, http_port=0, grpc_port=0, threads=1) as server:
        yield server


def ask(server: BackgroundServer, path: str, sent: bytes | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
    connection.request("GET" if sent is None else "POST", path, sent)
    answer = connection.getresponse()
    text = answer.read().decode("utf-8", "replace")
    connection.close()
    return answer.status, text


def counted(server: BackgroundServer) -> dict[str, float]:
    families = text_string_to_metric_families(ask(server, "/metrics")[1])
    samples = [sample for family in families if family.name == "espalier_refused" for sample in family.samples]
    return {sample.labels["limit"]: sample.value for sample in samples}


@pytest.mark.parametrize("limit", BODIES)
@pytest.mark.parametrize("path", ["/v2/models/late/infer", "/v2/models/nobody/infer"])
def test_over_http(own: BackgroundServer, limit: str, path: str) -> None:
    before = counted(own).get(limit, 0)
    status, text = ask(own, path, BODIES[limit])
    assert status == (413 if limit == "body" else 400), text
    assert counted(own)[limit] == before + 1


def test_images(own: BackgroundServer) -> None:
    before = counted(own)
    assert ask(own, "/predict", bytes(40_000_000))[0] == 413
    assert ask(own, "/predict?tasks=" + ",".join(f"t{number}" for number in range(100)), b"no image")[0] == 400
    after = counted(own)
    assert {limit: after[limit] - before.get(limit, 0) for limit in after if after[limit] != before.get(limit, 0)} == {
        "body": 1,
        "names": 1,
    }


@pytest.mark.parametrize("limit", ["strings", "names"])
@pytest.mark.parametrize("in_stream", [False, True])
def test_over_grpc(own: BackgroundServer, limit: str, in_stream: bool) -> None:
    request = pb.ModelInferRequest(model_name="late")
    request.inputs.add(name="image", datatype="BYTES", shape=[MANY + 1])
    if limit == "strings":
        request.raw_input_contents.append(bytes(4 * (MANY + 1)))
    else:
        request.outputs.extend(pb.ModelInferRequest.InferRequestedOutputTensor(name=f"o{number}") for number in range(100))
        request.inputs[0].CopyFrom(pb.ModelInferRequest.InferInputTensor(name="image", datatype="UINT8", shape=[1, 8, 8, 3]))
        request.raw_input_contents.append(images(1).tobytes())
    before = counted(own).get(limit, 0)
    with grpc.insecure_channel(own.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        if in_stream:
            assert next(stub.ModelStreamInfer(iter([request]))).error_message
        else:
            with pytest.raises(grpc.RpcError):
                stub.ModelInfer(request)
    assert counted(own)[limit] == before + 1


def test_what_does_not_wait_any_more_is_counted_once(repository: Repository) -> None:
    with BackgroundServer(repository, http_port=0, grpc_port=0, max_pending_bytes=1000) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
        connection.putrequest("POST", "/v2/models/late/infer")
        connection.putheader("Content-Length", "2000")
        connection.endheaders(b" " * 900)  # and the rest does not come
        wait_for(lambda: ask(server, "/v2/models/late/infer", body())[0] == 429)
        assert counted(server)["pending_bytes"] == 1
        connection.close()


@pytest.mark.parametrize("binary", [True, False])
def test_an_answer_for_which_there_is_no_room_is_not_written(repository: Repository, binary: bool) -> None:
    """The request has room, and its answer has not, beside what somebody else sends."""
    rows = 50
    sent = body(shape=[rows, 8, 8, 3], data=images(rows).ravel().tolist())
    if binary:
        sent = sent[:-1] + b', "parameters": {"binary_data_output": true}}'
    answer = rows * len(repository.tasks) * 4 * (4 if binary else 22)
    limit = 1000 + len(sent) + answer // 2
    with BackgroundServer(repository, http_port=0, grpc_port=0, max_pending_bytes=limit) as server:
        assert ask(server, "/v2/models/all_tasks/infer", sent)[0] == 200  # alone
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=30)
        connection.putrequest("POST", "/v2/models/late/infer")
        connection.putheader("Content-Length", "2000")
        connection.endheaders(b" " * 1000)  # and the rest does not come
        wait_for(lambda: ask(server, "/v2/models/all_tasks/infer", sent)[0] == 429)
        assert ask(server, "/v2/models/late/infer", body())[0] == 200
        connection.close()


def test_the_documents_have_a_line_for_every_limit() -> None:
    text = DOCS.read_text()
    kinds, limits = [EspalierError], {*BODIES}
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        limits.add(kind.limit)
    assert [limit for limit in sorted(limits - {""}) if f"| `{limit}`" not in text] == []
