"""gRPC messages that would cost far more than their bytes are refused before anything is made of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from contract.repository import Repository
from serving.errors import Undecodable
from serving.protocol.grpc.cost import QUICK_BYTES, Schema, check_cost, is_quick, schema_of
from serving.protocol.grpc.wire import fields
from serving.protocol.message_limits import USUAL
from serving.server import BackgroundServer
from tests.processor_time import without_collecting
from tests.serving.nets import images
from tests.serving.protocol.grpc.message_memory import delimited, raw, tensor
from tests.serving.protocol.http.test_http import Http
from tests.serving.protocol.test_faults import call, mutated, seeds

pb: Any = service_pb2
SCHEMA = schema_of(pb.ModelInferRequest.DESCRIPTOR)
GROUPS = (3, 4)


@pytest.fixture
def channel(server: BackgroundServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_address) as made:
        yield made


def refusals(server: BackgroundServer, limit: str) -> float:
    """Return how often a server has refused something because of `limit`."""
    ask = Http(server)
    ask.connection.request("GET", "/metrics")
    lines = ask.connection.getresponse().read().decode().splitlines()
    ask.connection.close()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f'espalier_refused_total{{limit="{limit}"}}'))


texts = st.text(max_size=5)
parameters = st.dictionaries(texts, st.builds(pb.InferParameter, int64_param=st.integers(0, 2**63 - 1)), max_size=3)
contents = st.builds(
    pb.InferTensorContents,
    int64_contents=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    fp32_contents=st.lists(st.floats(width=32), max_size=3),
    bytes_contents=st.lists(st.binary(max_size=5), max_size=3),
)
inputs = st.builds(
    pb.ModelInferRequest.InferInputTensor,
    name=texts,
    shape=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    parameters=parameters,
    contents=st.none() | contents,
)
messages = st.builds(
    pb.ModelInferRequest,
    model_name=texts,
    id=st.text(max_size=200),
    parameters=parameters,
    inputs=st.lists(inputs, max_size=3),
    raw_input_contents=st.lists(st.binary(max_size=300), max_size=3),
).map(lambda message: bytes(message.SerializeToString()))


@settings(max_examples=40)
@given(messages)
def test_fields_are_the_whole_message_in_their_order(data: bytes) -> None:
    found = pb.ModelInferRequest()
    end = 0
    for _, _, start, stop in fields(data, 0, len(data)):
        assert end < start <= stop
        found.MergeFromString(data[end:stop])  # each is a message of its own
        end = stop
    assert end == len(data)
    assert found == pb.ModelInferRequest.FromString(data)


@settings(max_examples=100)
@given(messages, st.randoms(use_true_random=False))
def test_what_protobuf_decodes_is_counted_and_not_refused_as_damaged(data: bytes, rng: Any) -> None:
    check_cost(data, SCHEMA)
    damaged = mutated(data, rng)
    try:
        pb.ModelInferRequest.FromString(damaged)
    except DecodeError:
        return
    try:
        check_cost(damaged, SCHEMA)
    except Undecodable:
        assert any(byte & 7 in GROUPS for byte in damaged)  # which no client sends


DEAR = {
    "inputs": (b"\x2a\x00" * (USUAL.fields + 1), "fields"),
    "outputs": (b"\x32\x00" * (USUAL.fields + 1), "fields"),
    "parameters": (b"\x22\x00" * (USUAL.fields + 1), "fields"),
    "parameters of an input": (delimited(5, b"\x22\x00" * USUAL.fields), "fields"),
    "raw contents": (b"\x3a\x00" * (USUAL.fields + 1), "fields"),
    "unknown fields": (b"\x60\x00" * (USUAL.fields + 1), "fields"),
    "a shape": (delimited(5, delimited(3, b"\x01" * USUAL.fields)), "fields"),
    "a shape that is not packed": (delimited(5, b"\x18\x01" * USUAL.fields), "fields"),
    "values that are not packed": (tensor("INT64", 1, 3, b"\x18\x01" * USUAL.fields, packed=False), "fields"),
    "a name": (delimited(1, b"x" * (USUAL.text_bytes + 1)), "names"),
    "an id": (delimited(3, b"x" * (USUAL.text_bytes + 1)), "names"),
    "an unknown text": (delimited(12, b"x" * (USUAL.text_bytes + 1)), "names"),
    "strings": (tensor("BYTES", 1, 8, b"\x42\x00" * (USUAL.strings + 1), packed=False), "strings"),
}


@pytest.mark.parametrize("case", DEAR)
def test_what_costs_more_than_its_bytes_is_refused_and_counted(
    server: BackgroundServer, channel: grpc.Channel, case: str
) -> None:
    data, limit = DEAR[case]
    before = refusals(server, limit)
    status, sentence = call(channel, "ModelInfer", data)
    assert status == "INVALID_ARGUMENT"
    assert len(sentence) < 300
    assert refusals(server, limit) == before + 1


@pytest.mark.parametrize("case", ["inputs", "strings"])
def test_what_ends_in_damage_is_refused_as_dear_before_it_is_decoded(channel: grpc.Channel, case: str) -> None:
    assert case in call(channel, "ModelInfer", DEAR[case][0] + b"\xff")[1]


def test_a_stream_goes_on_after_a_message_that_costs_too_much(channel: grpc.Channel) -> None:
    good = pb.ModelInferRequest(model_name="late", id="7", raw_input_contents=[images(1).tobytes()])
    good.inputs.add(name="image", datatype="UINT8", shape=[1, 8, 8, 3])
    data = [good.SerializeToString(), DEAR["inputs"][0], good.SerializeToString()]
    stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    answers = [pb.ModelStreamInferResponse.FromString(answer) for answer in stream(iter(data), timeout=20)]
    assert [bool(answer.error_message) for answer in answers] == [False, True, False]
    assert answers[2].infer_response.id == "7"


@pytest.mark.parametrize("method", [name for name in seeds() if name != "ModelInfer"])
def test_messages_without_tensors_are_small(server: BackgroundServer, channel: grpc.Channel, method: str) -> None:
    before = refusals(server, "small_message")
    status, sentence = call(channel, method, delimited(12, bytes(USUAL.small_message_bytes)))
    if method == "RepositoryModelLoad":  # what is long there is a file
        assert (status, "takes neither 'config' nor 'file:' parameters" in sentence) == ("UNIMPLEMENTED", True)
    else:
        assert (status, f"{USUAL.small_message_bytes} bytes" in sentence) == ("RESOURCE_EXHAUSTED", True)
    assert refusals(server, "small_message") == before + 1
    assert call(channel, method, b"\x22\x00" * (USUAL.fields + 1))[0] == "INVALID_ARGUMENT"


def test_only_little_beside_raw_data_is_decoded_at_once() -> None:
    assert is_quick(raw("UINT8", 10**6, bytes(10**6)), SCHEMA)
    assert is_quick(b"\x2a\x00" * (QUICK_BYTES // 2), SCHEMA)
    assert not is_quick(b"\x2a\x00" * QUICK_BYTES, SCHEMA)
    assert not is_quick(delimited(5, b"\x22\x00" * QUICK_BYTES), SCHEMA)
    assert not is_quick(tensor("UINT8", 10_000, 4, b"\x01" * 10_000), SCHEMA)
    assert not is_quick(b"\x3a\x00" * QUICK_BYTES, SCHEMA)
    assert not is_quick(raw("UINT8", 10**7, bytes(10**7)), SCHEMA)
    assert not is_quick(delimited(7, bytes(10_000)) + b"\xff", SCHEMA)


def test_counting_ends_at_the_first_too_many() -> None:
    class Watched(bytes):
        furthest = 0

        def __getitem__(self, place: Any) -> Any:
            Watched.furthest = max(Watched.furthest, place)
            return super().__getitem__(place)

    with pytest.raises(Exception, match="more than 8192 fields"):
        check_cost(Watched(b"\x2a\x00" * 10**6), SCHEMA)
    assert Watched.furthest < 2 * USUAL.fields + 4


def test_a_schema_tells_data_from_structure() -> None:
    assert SCHEMA.data == {7}
    tensor_schema: Schema = SCHEMA.parts[5]
    assert tensor_schema.numbers == {3}
    assert tensor_schema.parts[5].data == set(range(1, 8))
    assert tensor_schema.parts[5].strings == {8}


def test_dear_messages_are_counted_beside_the_loop(repository: Repository) -> None:
    others = {*threading.enumerate()}
    with BackgroundServer(repository.path, http_port=0, grpc_port=0, threads=1) as server:
        (loop,) = {thread for thread in threading.enumerate() if thread.name == "espalier-server"} - others
        with grpc.insecure_channel(server.grpc_address) as channel:
            assert call(channel, "ServerLive", b"")[0] == "OK"

            def takes_s() -> float:
                with without_collecting():
                    before = processor_s(loop)
                    for _ in range(5):
                        call(channel, "ModelInfer", DEAR["strings"][0])
                    return processor_s(loop) - before

            assert any(takes_s() < 0.1 for _ in range(5))  # in the loop they take 0.2 to 0.4


def processor_s(thread: threading.Thread) -> float:
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
