"""Long bodies: read and written as json does, and by pieces, so that nobody else waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import tracemalloc
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.errors import InvalidRequest
from contract.repository import Repository
from serving.engines.in_memory import InMemoryEngine
from serving.errors import DeadlineExceeded
from serving.process.work_pool import WorkPool
from serving.protocol.grpc import codec as grpc_codec
from serving.protocol.http import json_codec
from serving.protocol.http.infer import infer
from serving.protocol.memory_budget import MemoryBudget
from serving.requests import InferResponse
from serving.router import Router
from serving.server import BackgroundServer
from tests.serving.nets import LAYERS, PIXELS, images, whole
from tests.serving.protocol.http.test_http import Http

pb: Any = service_pb2
pytestmark = pytest.mark.slow


def long_body(rows: int = 500, **changes: Any) -> bytes:
    """A request of `rows` rows for the task late, in nested lists."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": [rows, 8, 8, 3], "data": images(rows).tolist(), **changes}
    return json.dumps({"inputs": [tensor]}).encode()


class Watched(InMemoryEngine):
    """Knows how far a counter was when it was first asked."""

    def __init__(self) -> None:
        super().__init__(LAYERS)
        self.turns = 0
        self.turns_before_it = -1

    async def infer(self, *arguments: Any) -> Any:
        self.turns_before_it = self.turns
        return await super().infer(*arguments)


async def _turns_while_decoding(repository: Repository, body: bytes) -> tuple[int, bytes]:
    engine, hold = Watched(), (pending := MemoryBudget()).reserve()
    router = Router(repository, engine)
    await router.start()

    messages = [{"type": "http.request", "body": body}]

    async def receive() -> Any:
        if not messages:
            await asyncio.Event().wait()  # the client stays
        return messages.pop()

    answering = asyncio.create_task(infer({}, receive, router, ("late", ""), 1 << 26, None, WorkPool(), hold))
    while not answering.done():
        await asyncio.sleep(0)
        engine.turns += 1
    await router.aclose()
    answer = (await answering)[1]
    assert pending.bytes == len(body) + len(answer)
    return engine.turns_before_it, answer


def test_others_have_their_turn_while_a_long_body_is_decoded_and_not_for_a_short_one(repository: Repository) -> None:
    long_turns, answer = asyncio.run(_turns_while_decoding(repository, long_body(3000)))
    short_turns, _ = asyncio.run(_turns_while_decoding(repository, long_body(1)))
    assert long_turns > short_turns + 2
    found = np.array(json.loads(answer)["outputs"][0]["data"]).reshape(3000, -1)
    np.testing.assert_allclose(found, whole("late", images(3000)), rtol=1e-4, atol=1e-5)


def test_long_bodies_in_either_direction_are_answered_as_short_ones(server: BackgroundServer) -> None:
    ask = Http(server)
    rows = 4100  # 16,400 values come back
    blob = images(rows).tobytes()
    tensor = {"name": "image", "datatype": "UINT8", "shape": [rows, 8, 8, 3], "parameters": {"binary_data_size": len(blob)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    status, answer = ask("POST", "/v2/models/late/infer", head + blob, Inference_Header_Content_Length=str(len(head)))
    assert status == 200
    found = np.array(answer["outputs"][0]["data"]).reshape(rows, -1)
    np.testing.assert_allclose(found, whole("late", images(rows)), rtol=1e-3, atol=1e-4)
    assert ask("POST", "/v2/models/late/infer", long_body())[0] == 200
    for body, words in (
        (long_body(shape=[499, 8, 8, 3]), "takes 95808 values, but 96000 were sent"),
        (long_body(shape=[500, PIXELS]), "nested deeper than its axes"),
        (long_body()[:-2], "not JSON"),
        (b"[" * 300_000, "not JSON"),
        (long_body(data=[{}] * 200_000), "more than 32768 objects"),
    ):
        status, answer = ask("POST", "/v2/models/late/infer", body)
        assert status == 400
        assert any(word in answer["error"] for word in words.split("|"))
    ask.connection.close()


def test_only_what_takes_long_is_done_aside() -> None:
    binary = bytes(1_000_000)
    head = b'{"datatype": "UINT8"}'
    assert not json_codec.is_slow_to_decode(head + binary, str(len(head)))
    assert not json_codec.is_slow_to_decode(b"[1, 2]", None)
    assert json_codec.is_slow_to_decode(binary, None)
    for head in (b'{"datatype": "BYTES"}', b'{"datatype": "B\\u0059TES"}'):
        assert json_codec.is_slow_to_decode(head + binary, str(len(head)))
    _, as_json = json_codec.decode_request("m", "", b'{"inputs": []}', None)
    _, as_binary = json_codec.decode_request("m", "", b'{"inputs": [], "parameters": {"binary_data_output": true}}', None)
    for array, found in (
        (np.zeros(20_000), (True, False, False)),
        (np.full(20_000, b"x", object), (True, True, True)),
        (np.zeros(10), (False, False, False)),
    ):
        response = InferResponse("m", "1", "", {"y": array}, ())
        long = [json_codec.is_slow_to_encode(response, wanted) for wanted in (as_json, as_binary)]
        assert (*long, grpc_codec.is_slow_to_encode(response)) == found


def message(shape: list[int], datatype: str = "UINT8", raw: bytes | None = None, **contents: Any) -> Any:
    request = pb.ModelInferRequest(model_name="late")
    tensor = request.inputs.add(name="image", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


def test_long_messages_are_those_with_many_values_that_are_not_raw_numbers() -> None:
    assert grpc_codec.is_slow_to_decode(message([500, 8, 8, 3]))
    assert not grpc_codec.is_slow_to_decode(message([1, 8, 8, 3]))
    assert not grpc_codec.is_slow_to_decode(message([500, 8, 8, 3], raw=b""))
    assert grpc_codec.is_slow_to_decode(message([500, 8, 8, 3], "BYTES", raw=b""))
    assert not grpc_codec.is_slow_to_decode(message([2**62] * 100_000))  # refused soon, and nobody multiplies them


def test_typed_values_are_counted_before_they_are_converted() -> None:
    with pytest.raises(InvalidRequest, match=r"of shape \[1, 2\] takes 2 values, but 3 were sent"):
        grpc_codec.decode_request(message([1, 2], uint_contents=[1, 2, 3]))
    with pytest.raises(InvalidRequest, match=r"takes 2 elements, but more were sent"):
        grpc_codec.decode_request(message([1, 2], "BYTES", raw=bytes(4 * 10)))


def test_a_long_typed_message_is_answered(server: BackgroundServer) -> None:
    request = message([100, 8, 8, 3], uint_contents=images(100).ravel().tolist())
    with grpc.insecure_channel(server.grpc_address) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    found = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(100, -1)
    np.testing.assert_allclose(found, whole("late", images(100)), rtol=1e-3, atol=1e-4)


def tensor_text(data: str, count: int, datatype: str = "FP32", beside: str = "") -> bytes:
    return f'{{"inputs": [{{"name": "x", "datatype": "{datatype}", "shape": [{count}], "data": {data}}}]{beside}}}'.encode()


HOSTILE = {
    "a long string among short ones": tensor_text('["' + "a" * 40_000 + '"' + ',""' * 10_000 + "]", 10_001),
    "the same as strings": tensor_text('["' + "a" * 400_000 + '"' + ',""' * 100_000 + "]", 100_001, "BYTES"),
    "lists 290 deep": tensor_text("[" + ",".join(["[" * 290 + "1" + "]" * 290] * 500) + "]", 500),
    "a list 100,000 deep": tensor_text("[" * 100_000 + "]" * 100_000, 1),
    "short numbers": tensor_text("[" + ",".join(["1"] * 200_000) + "]", 200_000),
    "numbers of many digits": tensor_text("[" + ",".join(["0." + "1" * 300] * 2_000) + "]", 2_000),
    "a number of a million digits": tensor_text("[" + "1" * 1_000_000 + "]", 1, "INT64"),
    "empty lists": tensor_text("[" + ",".join(["[]"] * 200_000) + "]", 1),
    "empty objects": tensor_text("[" + ",".join(["{}"] * 200_000) + "]", 1),
    "empty inputs": b'{"inputs": [' + b",".join([b"{}"] * 200_000) + b"]}",
    "empty outputs": b'{"inputs": [], "outputs": [' + b",".join([b"{}"] * 200_000) + b"]}",
    "parameters": b'{"parameters": {' + b",".join(b'"%d":1' % number for number in range(100_000)) + b"}}",
    "members that no request has": b"{" + b",".join(b'"%d":1' % number for number in range(100_000)) + b"}",
    "the same member again and again": b'{"inputs": []' + b',"inputs":[{}]' * 100_000 + b"}",
    "more values than the shape says": tensor_text("[" + ",".join(["1"] * 200_000) + "]", 3),
    "many short strings": tensor_text("[" + ",".join(['"ab"'] * 300_000) + "]", 300_000, "BYTES"),
    "NaN": tensor_text("[" + ",".join(["NaN"] * 200_000) + "]", 200_000),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_no_json_takes_more_than_eight_times_its_text(body: bytes) -> None:
    tracemalloc.start()
    try:
        with contextlib.suppress(InvalidRequest):
            json_codec.decode_request("m", "", body, None)
        assert tracemalloc.get_traced_memory()[1] < 8 * len(body) + (1 << 20)
    finally:
        tracemalloc.stop()


def test_a_long_body_is_decoded_no_longer_than_it_is_wanted_or_its_timeout() -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        json_codec.decode_request("m", "", long_body(3000), None, check=check)
    body = long_body(3000)[:-1] + b', "parameters": {"timeout": 1000}}'
    with pytest.raises(DeadlineExceeded):
        json_codec.decode_request("m", "", body, None, arrived=time.monotonic() - 1)
