"""The data that are taken out of long messages are what protobuf makes of them, and take little memory."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from contract.errors import InvalidRequest
from serving.errors import Undecodable
from serving.protocol.grpc.codec import decode_request
from serving.protocol.grpc.contents import DTYPES, Contents, take_apart
from serving.protocol.grpc.cost import QUICK_BYTES
from tests.serving.protocol.grpc.message_memory import delimited, tensor
from tests.serving.protocol.grpc.test_cost import messages
from tests.serving.protocol.test_faults import mutated

pb: Any = service_pb2


def joined(contents: Contents, field: str) -> list[Any]:
    return [number for piece in contents.numbers(field, lambda: None) for number in piece.tolist()]


def check_same(data: bytes) -> None:
    """Check that what is taken out, and what is left, is what protobuf finds in `data`."""
    structure, tensors = take_apart(data, 0)
    left, whole = pb.ModelInferRequest.FromString(structure), pb.ModelInferRequest.FromString(data)
    assert [bytes(raw) for raw in tensors.raw] == list(whole.raw_input_contents)
    for place, found in tensors.contents.items():
        wanted = whole.inputs[place].contents
        assert {*found.spans} == {field.name for field, _ in wanted.ListFields()}
        for field in found.spans:
            if field == "bytes_contents":
                assert found.strings() == list(wanted.bytes_contents)
            else:
                np.testing.assert_array_equal(joined(found, field), getattr(wanted, field))
                assert found.count(field) == len(getattr(wanted, field))
    del whole.raw_input_contents[:]
    for message in (left, whole):
        for each in message.inputs:
            each.ClearField("contents")
    assert left.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


@settings(max_examples=100)
@given(messages)
def test_a_message_that_is_taken_apart_is_the_same(data: bytes) -> None:
    check_same(data)


@settings(max_examples=200)
@given(messages, st.randoms(use_true_random=False))
def test_damaged_messages_are_read_as_protobuf_reads_them_or_refused(data: bytes, rng: random.Random) -> None:
    damaged = mutated(data, rng)
    try:
        check_same(damaged)
    except (Undecodable, DecodeError):
        return  # what protobuf would have read all the same has groups, or packed values that are cut off


def spread(rng: random.Random, bits: int, signed: bool) -> Iterator[int]:
    """Yield numbers whose lengths on the wire are all there are."""
    while True:
        number = rng.getrandbits(rng.randrange(1, bits + 1))
        yield number - (1 << bits) if signed and number >> (bits - 1) else number


@pytest.mark.parametrize(("field", "bits", "signed"), [("int_contents", 32, True), ("int64_contents", 64, True)])
@pytest.mark.parametrize("unsigned", [False, True])
def test_long_lists_of_any_numbers_are_read_by_pieces(field: str, bits: int, signed: bool, unsigned: bool) -> None:
    field, signed = (f"u{field}", False) if unsigned else (field, signed)
    numbers = spread(random.Random(1), bits, signed)
    contents = pb.InferTensorContents(**{field: [next(numbers) for _ in range(20_000)]})
    request = pb.ModelInferRequest(model_name="m", id="i")
    request.inputs.add(name="x", datatype="INT64", contents=contents)
    check_same(request.SerializeToString())


def test_lists_in_several_parts_packed_and_not_are_one() -> None:
    parts = delimited(3, b"\x01\x02") + b"\x18\x83\x01" + delimited(3, b"") + delimited(3, b"\x04") + b"\x1d\x00\x00\x00\x00"
    data = tensor("INT64", 4, 3, parts, packed=False)
    check_same(data)
    check_same(tensor("FP32", 3, 6, delimited(6, bytes(8)) + b"\x35\x00\x00\x80\x3f", packed=False))
    twice = pb.ModelInferRequest.InferInputTensor(contents=pb.InferTensorContents(int_contents=[1], bytes_contents=[b"a", b""]))
    check_same(delimited(5, twice.SerializeToString() * 2))


def test_numbers_that_are_too_long_for_their_type_lose_their_upper_bits_as_in_protobuf() -> None:
    for number, field in ((1, "bool_contents"), (2, "int_contents"), (4, "uint_contents")):
        for value in (b"\xff" * 9 + b"\x01", b"\x80\x80\x80\x80\x10", b"\x80\x80\x00", b"\xff\xff\xff\xff\x7f"):
            assert field in DTYPES
            check_same(tensor("X", 1, number, value))


@pytest.mark.parametrize("payload", [b"\xff" * 11 + b"\x01", b"\x01" * 5000 + b"\x80", b"\xff" * 70_000, b"\x80" * 10 + b"\x01"])
def test_numbers_without_an_end_are_refused(payload: bytes) -> None:
    with pytest.raises(DecodeError):
        pb.ModelInferRequest.FromString(tensor("INT64", 1, 3, payload))
    _, tensors = take_apart(tensor("INT64", 1, 3, payload), 0)
    with pytest.raises(Undecodable):
        joined(tensors.contents[0], "int64_contents")


def test_half_a_number_is_refused() -> None:
    _, tensors = take_apart(tensor("FP32", 1, 6, bytes(7)), 0)
    with pytest.raises(Undecodable):
        joined(tensors.contents[0], "fp32_contents")


def decoded(data: bytes, check: Callable[[], None] = lambda: None) -> Any:
    structure, tensors = take_apart(data)
    return decode_request(pb.ModelInferRequest.FromString(structure), None, None, check, tensors).inputs["x"]


def test_long_inputs_are_decoded_as_short_ones_are() -> None:
    for count in (10, 10_000):
        values = [number % 100 for number in range(count)]
        assert (count > QUICK_BYTES) == (count == 10_000)
        for datatype, number in (("INT8", 2), ("UINT16", 4), ("INT64", 3)):
            array = decoded(tensor(datatype, count, number, bytes(values)))
            assert (array.dtype.name, array.tolist()) == (datatype.lower(), values)
        strings = decoded(tensor("BYTES", count, 8, delimited(8, b"ab") * count, packed=False))
        assert strings.tolist() == [b"ab"] * count
        for datatype, number, words in (
            ("INT8", 4, "is INT8, but comes in uint_contents; use int_contents"),
            ("FP16", 6, "is FP16, but comes in fp32_contents; use raw_input_contents"),
            ("INT64", 3, "takes 10001 values, but"),
        ):
            with pytest.raises(InvalidRequest, match=words):
                decoded(tensor(datatype, 10_001, number, bytes(4 * count) if number == 6 else bytes(values)))
        with pytest.raises(InvalidRequest, match="values that are not INT8"):
            decoded(tensor("INT8", count, 2, b"\x80\x01" * count))
        with pytest.raises(InvalidRequest, match="both raw and typed contents"):
            decoded(tensor("INT8", count, 2, bytes(values)) + delimited(7, bytes(count)))


def test_a_long_list_is_read_no_longer_than_it_is_wanted() -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoded(tensor("INT64", 10**6, 3, bytes(10**6)), check)


STRINGS = ("strings", "raw strings")  # an object each


@pytest.mark.slow
def test_no_message_takes_more_than_eight_times_its_bytes_and_six_megabytes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.serving.protocol.grpc.message_memory"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) > 20
    for size, taken, _, name in lines:
        assert int(taken) < (20 if name in STRINGS else 8) * int(size) + 6_000_000, name
