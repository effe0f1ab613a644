"""Bad input over both protocols: an answer in one sentence, never a failure of ours, never a hang."""

from __future__ import annotations

import gzip
import json
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from hypothesis import HealthCheck, Phase, given, settings
from tritonclient.grpc import service_pb2

from contract.repository import ALL_TASKS, Repository
from serving.engines.in_memory import InMemoryEngine
from serving.server import BackgroundServer
from tests.serving.nets import LAYERS, TASK_NAMES, images
from tests.serving.protocol.http.test_http import PICTURE, Http
from tests.serving.protocol.test_images import FORM, form


@pytest.fixture
def ask(server: BackgroundServer) -> Iterator[Http]:
    made = Http(server)
    yield made
    made.connection.close()


@pytest.fixture
def channel(server: BackgroundServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_address) as made:
        yield made


def call(channel: grpc.Channel, method: str, message: bytes, service: str = "inference.GRPCInferenceService") -> tuple[str, str]:
    """Return the status and the sentence of a gRPC call with the bytes `message`."""
    try:
        channel.unary_unary(f"/{service}/{method}")(message, timeout=20)
    except grpc.RpcError as error:
        return error.code().name, error.details()  # type: ignore[attr-defined]
    return "OK", ""


IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": images(1).ravel().tolist()}

SHAPES: dict[str, tuple[list[int], str]] = {
    "negative": ([-1, 8, 8, 3], "a shape is a list of non-negative integers"),
    "huge": ([2**31, 2**31, 8, 3], "more elements than any memory holds"),
    "overflows to 0": ([2**32, 2**32, 0, 3], "more elements than any memory holds"),
    "overflows to 192": ([2**62, 4, 8, 24], "more elements than any memory holds"),
    "largest": ([2**63 - 1, 0], "more elements than any memory holds"),
    "many axes": ([1] * 100, "more than 32 axes"),
    "empty": ([], "takes 1 "),
    "other": ([3, 8, 8, 1], "but model 'late' takes input 'image'"),
}


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("binary", [False, True], ids=["values", "binary"])
def test_shapes_that_cannot_be_over_http(ask: Http, case: str, binary: bool) -> None:
    shape, words = SHAPES[case]
    tensor: dict[str, Any] = {**IMAGE, "shape": shape}
    blob = b""
    if binary:
        del tensor["data"]
        blob = images(1).tobytes() if 0 not in shape else b""
        tensor["parameters"] = {"binary_data_size": len(blob)}
    elif 0 in shape:
        tensor["data"] = []
    head = json.dumps({"inputs": [tensor]}).encode()
    status, answer = ask("POST", "/v2/models/late/infer", head + blob, Inference_Header_Content_Length=str(len(head)))
    assert status == 400
    assert words in answer["error"]


@pytest.mark.parametrize("case", SHAPES)
@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
def test_shapes_that_cannot_be_over_grpc(channel: grpc.Channel, case: str, raw: bool) -> None:
    shape, words = SHAPES[case]
    request = service_pb2.ModelInferRequest(model_name="late")
    tensor = request.inputs.add(name="image", datatype="UINT8", shape=shape)
    if raw:
        request.raw_input_contents.append(images(1).tobytes() if 0 not in shape else b"")
    elif 0 not in shape:
        tensor.contents.uint_contents.extend(images(1).ravel().tolist())
    status, sentence = call(channel, "ModelInfer", request.SerializeToString())
    assert status == "INVALID_ARGUMENT"
    assert words in sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": [10**30, 0], "data": []}, "more elements than any memory holds"),
        ({"shape": [1.5, 8, 8, 3]}, "a shape is a list of non-negative integers"),
        ({"datatype": "FP32", "data": [1e39] * 192}, "values that are not FP32"),
        ({"datatype": "FP32"}, "The input is FP32, but model 'late' takes input 'image' (UINT8"),
        ({"datatype": "BYTES", "data": ["\ud800"] * 192}, "not JSON, an object in UTF-8"),
        ({"data": [float("nan")] * 192}, "values that are not UINT8"),
        ({"data": [-1] * 192}, "values that are not UINT8"),
        ({"data": [256] * 192}, "values that are not UINT8"),
        ({"data": [2**70] * 192}, "values that are not UINT8"),
        ({"data": [[1] * 192, [2] * 192]}, "takes 192 values, but 384 were sent"),
        ({"name": "\ud800"}, "not JSON, an object in UTF-8"),
        ({"parameters": {"binary_data_size": 2**70}}, f"declares {2**70} bytes of binary data, but 0 follow"),
    ],
    ids=lambda value: str(value)[:25],
)
def test_tensors_that_cannot_be(ask: Http, change: dict[str, Any], words: str) -> None:
    status, answer = ask("POST", "/v2/models/late/infer", json.dumps({"inputs": [{**IMAGE, **change}]}))
    assert (status, words in answer["error"]) == (400, True), answer


@pytest.mark.parametrize("length", ["-1", "+2", " 1 0", "1e3", "0x10", "\xb2", "9" * 5000, str(2**64), "", "99"])
def test_header_lengths_that_are_wrong(server: BackgroundServer, length: str) -> None:
    ask = Http(server)
    ask.connection.putrequest("POST", "/v2/models/late/infer")
    ask.connection.putheader("Inference-Header-Content-Length", length.encode("latin-1"))
    ask.connection.putheader("Content-Length", "2")
    ask.connection.endheaders(b"{}")
    response = ask.connection.getresponse()
    assert (response.status, b"Inference-Header-Content-Length is" in response.read()) == (400, True)
    ask.connection.close()


def test_a_long_name_in_a_sentence_is_cut(ask: Http, channel: grpc.Channel) -> None:
    """gRPC's clients refuse trailers over 8 KiB: they would see a failure of the connection."""
    name = "x" * 50_000
    request = service_pb2.ModelInferRequest(model_name=name)
    status, sentence = call(channel, "ModelInfer", request.SerializeToString())
    assert (status, len(sentence) < 1100, "..." in sentence) == ("NOT_FOUND", True, True)
    status, answer = ask("POST", "/v2/models/late/infer", json.dumps({"inputs": [{**IMAGE, "name": name}]}))
    assert (status, len(answer["error"]) < 1100) == (400, True)
    assert answer["error"].endswith("first the rows).")


def test_bodies_that_stop_early_disturb_nobody(server: BackgroundServer, ask: Http) -> None:
    for path, body in (
        ("/v2/models/late/infer", b'{"inputs"'),
        ("/predict", PICTURE[:50]),
        ("/predict", form(("a", PICTURE))[:50]),
    ):
        for header in (b"Content-Length: 500", b"Transfer-Encoding: chunked"):
            with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as raw:
                start = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\n%s\r\n\r\n"
                raw.sendall(start % (path.encode(), FORM.encode(), header))
                raw.sendall(body if b"Length" in header else b"%x\r\n%s\r\n" % (len(body), body))
        assert ask("GET", "/v2/health/ready")[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "limit"),
    [("/v2/models/late/infer", 5000), ("/v2/logging", 65_536), ("/v2/systemsharedmemory/region/r/register", 65_536)],
)
def test_a_flood_of_chunks_is_answered_at_the_limit(repository: Repository, path: str, limit: int) -> None:
    options: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "max_body_bytes": 5000, "shared_memory": True}
    with BackgroundServer(repository, InMemoryEngine(LAYERS), **options) as server:  # noqa: SIM117
        with socket.create_connection(("127.0.0.1", server.http_port), timeout=20) as raw:
            raw.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode())
            raw.sendall(b"1\r\nx\r\n" * (limit + 1))  # the last chunk never comes
            assert raw.recv(12) == b"HTTP/1.1 413"


@pytest.mark.slow
def test_bombs_are_not_unpacked(ask: Http) -> None:
    zeros = gzip.compress(bytes(70_000_000), 1)  # 300 kB
    for path, headers in (("/v2/models/late/infer", {}), ("/predict", {}), ("/predict", {"Content_Type": FORM})):
        status, answer = ask("POST", path, zeros, Content_Encoding="gzip", **headers)
        assert (status, "larger than the limit" in answer["error"]) == (413, True)
    nested = gzip.compress(gzip.compress(bytes(1000)))
    assert ask("POST", "/predict", nested, Content_Encoding="gzip")[0] == 400  # unpacked once, and no image


def test_images_that_claim_to_be_large_are_not_decoded(ask: Http) -> None:
    png = bytearray(PICTURE)
    png[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    gif = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x00\x00\x00"
    for data in (bytes(png), gif):
        status, answer = ask("POST", "/predict", data)
        assert status == 400
        assert "pixels; send a smaller one" in answer["error"] or "not an image" in answer["error"]


class Strange(InMemoryEngine):
    """Answers numbers that are not finite."""

    def __init__(self) -> None:
        values = np.array([[np.nan, np.inf, -np.inf, 1.5]], np.float32)
        super().__init__({**LAYERS, "branch-late": lambda rows: values})


def test_outputs_that_are_not_finite_reach_clients_as_they_are(repository: Repository) -> None:
    with BackgroundServer(repository, Strange(), http_port=0, grpc_port=0) as server:
        ask = Http(server)
        ask.connection.request("POST", "/v2/models/late/infer", json.dumps({"inputs": [IMAGE]}))
        text = ask.connection.getresponse().read()
        assert b'"data":[NaN,Infinity,-Infinity,1.5]' in text  # as Triton writes them; Python's json reads them
        ask.connection.close()
        for module, address in ((tritonclient.http, server.http_address), (tritonclient.grpc, server.grpc_address)):
            with module.InferenceServerClient(address) as client:
                tensor = module.InferInput("image", [1, 8, 8, 3], "UINT8")
                tensor.set_data_from_numpy(images(1))
                for options in ({"binary_data": False}, {"binary_data": True}) if module is tritonclient.http else ({},):
                    result = client.infer("late", [tensor], outputs=[module.InferRequestedOutput("late", **options)])
                    np.testing.assert_array_equal(result.as_numpy("late"), [[np.nan, np.inf, -np.inf, 1.5]])
                best = client.infer("late", [tensor], outputs=[module.InferRequestedOutput("late", class_count=4)])
                assert best.as_numpy("late")[0].tolist() == [b"inf:1:e", b"1.500000:3:w", b"-inf:2:s", b"nan:0:n"]


def test_messages_that_cannot_be_decoded_are_the_clients_fault(channel: grpc.Channel) -> None:
    for service, method in (
        ("inference.GRPCInferenceService", "ModelInfer"),
        ("inference.GRPCInferenceService", "ServerMetadata"),
        ("grpc.health.v1.Health", "Check"),
    ):
        status, sentence = call(channel, method, b"\x0a\xff", service)
        assert (status, "cannot be decoded" in sentence) == ("INVALID_ARGUMENT", True)
    for path in ("/inference.GRPCInferenceService/ModelStreamInfer", "/grpc.health.v1.Health/Watch"):
        kind = channel.stream_stream if "Stream" in path else channel.unary_stream
        with pytest.raises(grpc.RpcError) as caught:
            next(kind(path)(iter([b"\x0a\xff"]) if "Stream" in path else b"\x0a\xff", timeout=20))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]


def seeds() -> dict[str, list[bytes]]:
    """Valid messages for every method that takes one and answers one."""
    infer = service_pb2.ModelInferRequest(model_name=ALL_TASKS, id="7", raw_input_contents=[images(1).tobytes()])
    infer.inputs.add(name="image", datatype="UINT8", shape=[1, 8, 8, 3])
    infer.outputs.add(name="late").parameters["classification"].int64_param = 2
    typed = service_pb2.ModelInferRequest(model_name="late")
    typed.inputs.add(name="image", datatype="UINT8", shape=[1, 8, 8, 3]).contents.uint_contents.extend([200] * 192)
    shared = service_pb2.ModelInferRequest(model_name="late")
    parameters = shared.inputs.add(name="image", datatype="UINT8", shape=[1, 8, 8, 3]).parameters
    parameters["shared_memory_region"].string_param = "r"
    parameters["shared_memory_byte_size"].int64_param = 192
    found = {"ModelInfer": [message.SerializeToString() for message in (infer, typed, shared)] * 4}
    for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
        if method.name not in ("ModelInfer", "ModelStreamInfer"):
            message = GetMessageClass(method.input_type)()
            for field in message.DESCRIPTOR.fields:
                if field.type == field.TYPE_STRING and not field.is_repeated:
                    setattr(message, field.name, "late" if "name" in field.name else "1")
            found[method.name] = [message.SerializeToString(), b""]
    return found


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with one byte changed, or with some changed, cut out, or put in."""
    result = bytearray(data)
    if data and rng.random() < 0.5:
        result[rng.randrange(min(len(data), 60))] = rng.choice((0, 1, 7, 255, rng.randrange(256)))  # where the fields are
        return bytes(result)
    for _ in range(rng.choice((1, 1, 2, 5))):
        place, length = rng.randrange(len(result) + 1), rng.choice((1, 1, 2, 8, 50))
        noise = rng.choice((rng.randbytes(length), b"\xff" * length, b"\x00" * length, bytes(result[place : place + length]) * 2))
        result[place : place + rng.choice((0, len(noise), length))] = noise
    return bytes(result)


@pytest.mark.slow
def test_2000_mutated_messages_are_never_our_fault(repository: Repository) -> None:
    rng = random.Random(5)
    with BackgroundServer(repository, http_port=0, grpc_port=0, threads=1, shared_memory=True) as server:
        with grpc.insecure_channel(server.grpc_address) as channel:
            messages = [(method, data) for method, all_data in seeds().items() for data in all_data]
            found: Counter[str] = Counter()
            for _ in range(2000):
                method, data = rng.choice(messages)
                message = mutated(data, rng)
                status, sentence = call(channel, method, message)
                assert status not in ("INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED"), (method, message, sentence)
                found[status] += 1
            assert call(channel, "ServerReady", b"") == ("OK", "")
            check = health_pb2.HealthCheckRequest(service="late").SerializeToString()
            assert call(channel, "Check", check, "grpc.health.v1.Health") == ("OK", "")
        assert min(found["OK"], found["INVALID_ARGUMENT"], found["NOT_FOUND"]) > 50, found  # it went deep, too


# So many requests are made up; for a long run set the variable to 10000. Of them to each /infer: a body of that schema takes 70 ms.
GENERATED = int(os.environ.get("ESPALIER_TEST_REQUESTS", "500"))
INFER_REQUESTS = GENERATED // 50


@pytest.mark.slow
def test_generated_requests_are_never_our_fault(repository: Repository) -> None:
    import schemathesis  # takes a second, which the fast part of the tests does not have

    with BackgroundServer(repository, http_port=0, grpc_port=0, threads=1, shared_memory=True) as server:
        schema = schemathesis.openapi.from_url(f"http://{server.http_address}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        rich = [operation for operation in operations if list(operation.path_parameters) or list(operation.body)]
        found: Counter[int] = Counter()
        rng = random.Random(7)
        share = -(-(GENERATED - 2 * INFER_REQUESTS) // (len(rich) - 2))
        for operation in operations:
            is_slow = operation.path.endswith("/infer")
            _send_generated(operation, INFER_REQUESTS if is_slow else share, server, found, rng)
        ask = Http(server)
        assert ask("GET", "/v2/health/ready")[0] == 200
        ask.connection.close()
    assert sum(found.values()) >= GENERATED
    assert found[200] > GENERATED / 20, found
    assert not [status for status in found if status >= 500 and status not in (501, 503, 504)], (
        found
    )  # 504: a `timeout` too short


def _send_generated(operation: Any, count: int, server: BackgroundServer, found: Counter[int], rng: random.Random) -> None:
    session = requests.Session()

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def send(case: Any) -> None:
        if "model" in case.path_parameters and rng.random() < 0.8:  # else nearly all are answered by "unknown model"
            case.path_parameters["model"] = rng.choice((*TASK_NAMES, ALL_TASKS, "trunk", "head-probe"))
        response = case.call(base_url=f"http://{server.http_address}", timeout=20, session=session)
        found[response.status_code] += 1
        assert response.status_code < 500 or response.status_code in (501, 503, 504), (case.as_curl_command(), response.content)

    send()
    session.close()
