"""Wire formats without a wire: tensors and HTTP bodies."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from contract.dtypes import NUMPY_DTYPES, dtype_name
from contract.errors import InvalidRequest, TooMuch
from contract.tensors import from_bytes, from_numbers, to_bytes, values_text
from serving.errors import Unsupported
from serving.protocol.http.json_codec import decode_request, encode_response
from serving.protocol.http.json_request import JsonValues
from serving.requests import InferResponse, RequestedOutput

shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
numeric = st.sampled_from([name for name in NUMPY_DTYPES if name != "BYTES"])
number_arrays = st.tuples(numeric, shapes).flatmap(lambda pair: hnp.arrays(NUMPY_DTYPES[pair[0]], pair[1]))
finite_arrays = number_arrays.filter(lambda array: bool(np.isfinite(array).all()))


ANY_BYTES = st.binary(max_size=5)


def from_values(name: str, datatype: Any, shape: Any, values: Any) -> np.ndarray:
    return JsonValues(memoryview(json.dumps(values).encode())).array(name, datatype, shape)


def to_values(name: str, array: np.ndarray) -> Any:
    return json.loads(b"[%b]" % b"".join(values_text(name, array)))


@st.composite
def bytes_arrays(draw: st.DrawFn, elements: st.SearchStrategy[bytes] = ANY_BYTES) -> np.ndarray:
    shape = draw(shapes)
    array = np.empty(shape, object)
    array.ravel()[:] = draw(st.lists(elements, min_size=array.size, max_size=array.size))
    return array


@settings(max_examples=50)
@given(number_arrays | bytes_arrays())
def test_a_tensor_survives_its_bytes(array: np.ndarray) -> None:
    data = to_bytes(array)
    copy = from_bytes("x", dtype_name(array), list(array.shape), memoryview(data))
    assert (copy.dtype, copy.shape) == (array.dtype, array.shape)
    assert to_bytes(copy) == data


@settings(max_examples=50)
@given(finite_arrays | bytes_arrays(st.text(st.characters(exclude_categories=("Cs",)), max_size=4).map(str.encode)))
def test_a_tensor_survives_json_flat_and_nested(array: np.ndarray) -> None:
    flat = to_values("x", array)
    copy = from_values("x", dtype_name(array), list(array.shape), flat)
    assert (copy.dtype, copy.shape) == (array.dtype, array.shape)
    assert (copy == array).all()
    if array.dtype != object and array.ndim:
        np.testing.assert_array_equal(from_values("x", dtype_name(array), list(array.shape), array.tolist()), array)


@settings(max_examples=50)
@given(number_arrays, st.binary(max_size=40))
def test_other_numbers_of_bytes_are_refused(array: np.ndarray, data: bytes) -> None:
    if len(data) != array.nbytes:
        with pytest.raises(InvalidRequest, match=f"takes {array.nbytes} bytes, but {len(data)} were sent"):
            from_bytes("x", dtype_name(array), list(array.shape), memoryview(data))


@settings(max_examples=50)
@given(st.binary(max_size=12), st.integers(0, 3))
def test_any_bytes_as_strings_are_read_or_refused(data: bytes, count: int) -> None:
    with suppress(InvalidRequest):
        assert to_bytes(from_bytes("x", "BYTES", [count], memoryview(data))) == data


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "words"),
    [
        ("UINT8", [1], [300], "values that are not UINT8"),
        ("UINT8", [1], [-1], "values that are not UINT8"),
        ("UINT8", [1], [1.5], "values that are not UINT8"),
        ("INT64", [1], ["1"], "values that are not INT64"),
        ("FP32", [1], [None], "values that are not FP32"),
        ("FP32", [1], [True], "values that are not FP32"),
        ("FP32", [1], [1e300], "values that are not FP32"),
        ("FP32", [1], [{}], "values that are not FP32"),
        ("BOOL", [1], [2], "values that are not BOOL"),
        ("BYTES", [1], [2], "its values are strings"),
        ("FP32", [2], [1.0], r"of shape \[2\] takes 2 values, but 1 were sent"),
        ("FP32", [2, 2], [[1.0, 2.0], [3.0]], r"takes 4 values, but 3 were sent"),
        ("FP32", [2], [[1.0, 2.0], [3.0]], r"has values in lists nested deeper than its axes"),
        ("FP32", [], [[1.0]], r"has values in lists nested deeper than its axes"),
        ("FP32", [1, 2], [[1.0], [2.0], [3.0], [4.0]], r"takes 2 values, but 4 were sent"),
        ("FP32", [2, 2], [[1.0], [], [2.0]], "has empty lists beside its values"),
        ("BYTES", [2], ["a", 0], "its values are strings"),
        ("BYTES", [2], [["a", "b"]], "nested deeper than its axes"),
        ("UINT64", [1], [-1], "values that are not UINT64"),
        ("INT64", [1], [True], "values that are not INT64"),
        ("INT32", [2], [1, 2**31], "values that are not INT32"),
        ("FP32", [-1], [1.0], "a shape is a list of non-negative integers"),
        ("FP32", [True], [1.0], "a shape is a list of non-negative integers"),
        ("FP32", 3, [1.0], "a shape is a list of non-negative integers"),
        ("FP8", [1], [1.0], "has datatype 'FP8'; known are: BOOL"),
        (7, [1], [1.0], "has datatype 7"),
        ("BF16", [1], [1.0], "BF16, which this server does not take; send FP32"),
    ],
)
def test_values_that_do_not_fit_are_refused(datatype: Any, shape: Any, values: Any, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        from_values("x", datatype, shape, values)


@pytest.mark.parametrize("binary", [True, False])
def test_the_strings_of_all_tensors_together_are_few(binary: bool) -> None:
    def decode(count: int) -> None:
        sent = {"parameters": {"binary_data_size": 5 * count}} if binary else {"data": ["a"] * count}
        tensors = [{"name": name, "datatype": "BYTES", "shape": [count], **sent} for name in "ab"]
        head = json.dumps({"inputs": tensors}).encode()
        body = head + 2 * count * b"\1\0\0\0a" if binary else head
        decode_request("m", "", body, str(len(head)))

    decode(1 << 16)
    with pytest.raises(TooMuch, match="The request has 131074 strings; send at most 131072 at once") as caught:
        decode((1 << 16) + 1)
    assert caught.value.limit == "strings"


@settings(max_examples=60)
@given(
    finite_arrays | bytes_arrays(st.text(st.characters(exclude_categories=("Cs",)), max_size=4).map(str.encode)),
    st.integers(30, 60),
)
def test_pieces_of_any_length_make_the_same_tensor(array: np.ndarray, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serving.protocol.http.json_request._PIECE_BYTES", size)
        values = (
            [text.decode() for text in array.ravel()]
            if array.dtype == object
            else array.tolist()
            if array.ndim
            else [array.item()]
        )
        copy = from_values("x", dtype_name(array), list(array.shape), values)
    assert (copy.dtype, copy.shape) == (array.dtype, array.shape)
    assert (copy == array).all()


def test_what_pythons_json_writes_for_numbers_that_are_not_finite_is_read_beside_strings_that_say_the_same() -> None:
    numbers = {"name": "NaN", "datatype": "FP32", "shape": [5], "data": [float("nan"), float("inf"), -float("inf"), 1.5, -0.0]}
    strings = {"name": 'a "NaN', "datatype": "BYTES", "shape": [3], "data": ["NaN", '\\"', "[-Infinity,"]}
    request, _ = decode_request("m", "", json.dumps({"inputs": [numbers, strings], "id": "Infinity"}).encode(), None)
    assert request.id == "Infinity"
    np.testing.assert_array_equal(request.inputs["NaN"], np.array([np.nan, np.inf, -np.inf, 1.5, -0.0], np.float32))
    assert request.inputs['a "NaN'].tolist() == [b"NaN", b'\\"', b"[-Infinity,"]


@pytest.mark.parametrize("name", [b"x", b"\xff"])
@pytest.mark.parametrize("text", [b"\xff", b"a\xc3", b"\xed\xa0\x80", b"\\ud800", b"\\u12"])
def test_text_that_is_no_text_is_refused(name: bytes, text: bytes) -> None:
    for datatype in (b"BYTES", b"FP32", text):
        content = b'{"inputs": [{"name": "%b", "datatype": "%b", "shape": [1], "data": ["%b"]}]}' % (name, datatype, text)
        with pytest.raises(InvalidRequest):
            decode_request("m", "", content, None)


tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.none() | st.integers() | st.sampled_from("ab"),
        "datatype": st.sampled_from(["UINT8", None, 1]),
        "shape": st.sampled_from([[0], [1], None, "x"]),
        "parameters": st.sampled_from([None, {}, {"binary_data_size": 0}, {"classification": 1}, {"binary_data_size": None}, 3]),
        "data": st.sampled_from([None, [], 1]),
    },
)


@settings(max_examples=200)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "id": st.none() | st.text(max_size=3),
            "parameters": st.none() | st.dictionaries(st.text(max_size=3), st.none() | st.integers(), max_size=2),
            "inputs": st.none() | st.integers() | st.lists(tensors | st.none(), max_size=2),
            "outputs": st.none() | st.text(max_size=2) | st.lists(tensors | st.text(max_size=2), max_size=2),
            "more": st.integers(),
        },
    )
)
def test_what_is_short_is_read_at_once_as_what_is_long(request: dict[str, Any]) -> None:
    def read(text: str) -> str:
        try:
            return repr(decode_request("m", "", text.encode(), None))
        except (InvalidRequest, Unsupported):
            return "refused"  # with which sentence, where several things are wrong, may differ

    text = json.dumps(request)
    assert read(text) == read(text + " " * 5000)


@settings(max_examples=200)
@given(st.binary(max_size=12), st.sampled_from(["BYTES", "FP32", "BOOL", "INT64"]))
def test_any_bytes_as_values_are_read_or_refused(data: bytes, datatype: str) -> None:
    for values in (data, b'"%b"' % data, b"1,%b" % data, b"NaN,%b" % data):
        with suppress(InvalidRequest, Unsupported):
            content = b'{"inputs": [{"name": "x", "datatype": "%b", "shape": [1], "data": [%b]}]}' % (datatype.encode(), values)
            decode_request("m", "", content, None)


def test_typed_numbers_of_a_message_are_not_wrapped() -> None:
    assert from_numbers("x", "INT8", [2], 2, [np.array([-128, 127])]).tolist() == [-128, 127]
    with pytest.raises(InvalidRequest, match="values that are not INT8"):
        from_numbers("x", "INT8", [1], 1, [np.array([128])])


def test_large_unsigned_integers_stay_exact() -> None:
    assert from_values("x", "UINT64", [2], [1, 2**63 + 1]).tolist() == [1, 2**63 + 1]


def body(**changes: Any) -> bytes:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 2], "data": [1, 2]}
    return json.dumps({"inputs": [tensor], **changes}).encode()


def test_the_numbers_of_a_usual_request_are_gone_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise AssertionError("once more")

    monkeypatch.setattr("serving.protocol.http.json_request._finite", refuse)
    monkeypatch.setattr("serving.protocol.http.json_request._tensors_of", refuse)
    values = [number / 8 for number in range(3000)]
    tensor = {"name": "NaN", "datatype": "FP32", "shape": [3000], "data": values}  # of words, only numbers matter
    body = json.dumps({"id": "Infinity", "inputs": [tensor], "outputs": None}).encode()
    request, _ = decode_request("m", "", body, None)
    np.testing.assert_array_equal(request.inputs["NaN"], np.array(values, np.float32))
    assert (request.id, request.outputs) == ("Infinity", ())
    with pytest.raises(AssertionError, match="once more"):
        decode_request("m", "", body.replace(b"0.125,", b"NaN,"), None)


def test_a_json_request_says_what_its_outputs_should_be() -> None:
    outputs = [{"name": "a", "parameters": {"binary_data": True}}, {"name": "b", "parameters": {"classification": 2}}]
    request, wanted = decode_request("m", "1", body(id="7", outputs=outputs, parameters={"x": 1}), None)
    assert (request.model, request.version, request.id, request.parameters) == ("m", "1", "7", {"x": 1})
    assert request.outputs == (RequestedOutput("a"), RequestedOutput("b", 2))
    assert request.inputs["image"].tolist() == [[1, 2]]
    assert (wanted.is_binary("a"), wanted.is_binary("b"), wanted.is_binary("other")) == (True, False, False)
    _, wanted = decode_request("m", "1", body(parameters={"binary_data_output": True}), None)
    assert wanted.is_binary("other")


BINARY = {"name": "image", "datatype": "UINT8", "shape": [1, 2], "parameters": {"binary_data_size": 2}}


NULLABLE = {
    (): ("id", "parameters", "outputs"),
    ("inputs", 0): ("parameters",),
    ("inputs", 1): ("parameters",),
    ("outputs", 0): ("parameters",),
    ("parameters",): ("timeout", "priority", "binary_data_output", "partial_results"),
    ("inputs", 0, "parameters"): ("binary_data_size", "shared_memory_region", "shared_memory_byte_size"),
    ("inputs", 1, "parameters"): ("shared_memory_region",),
    ("outputs", 0, "parameters"): ("classification", "binary_data", "shared_memory_region", "shared_memory_offset"),
}


@settings(max_examples=100)
@given(st.sets(st.sampled_from([(place, name) for place, names in NULLABLE.items() for name in names])))
def test_null_is_absence(nulls: set[tuple[tuple[Any, ...], str]]) -> None:
    def request(as_null: bool) -> dict[str, Any]:
        """The request with each of `nulls` null, or left out; what is there otherwise is kept."""
        tensor = {"name": "y", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}}
        if (("inputs", 1), "parameters") in nulls:
            tensor = {"name": "y", "datatype": "UINT8", "shape": [2], "data": [1, 2]}
        numbers = {"name": "x", "datatype": "FP32", "shape": [1], "data": [0.5], "parameters": {}}
        made: dict[str, Any] = {"inputs": [numbers, tensor], "outputs": [{"name": "z", "parameters": {}}], "parameters": {}}
        for place, name in sorted(nulls, key=lambda null: -len(null[0])):  # the inner ones first
            holder = made
            for step in place:
                holder = holder[step] if isinstance(step, int) or step in holder else {}
            holder.pop(name, None)
            if as_null:
                holder[name] = None
        return made

    def decoded(as_null: bool) -> Any:
        made = request(as_null)
        head = json.dumps(made).encode()
        blob = b"\x01\x02" if "data" not in made["inputs"][1] else b""
        found, wanted = decode_request("m", "", head + blob, str(len(head)))
        inputs = {name: array.tolist() for name, array in found.inputs.items()}
        return found.id, found.outputs, found.parameters, inputs, wanted

    assert decoded(True) == decoded(False)


def test_binary_inputs_follow_in_order() -> None:
    head = json.dumps({"inputs": [BINARY, {**BINARY, "name": "mask"}]}).encode()
    request, _ = decode_request("m", "", head + b"\x01\x02\x03\x04", str(len(head)))
    assert {name: array.tolist() for name, array in request.inputs.items()} == {"image": [[1, 2]], "mask": [[3, 4]]}


TENSOR = {"name": "image", "datatype": "UINT8", "shape": [1], "data": [1]}


@pytest.mark.parametrize(
    ("content", "length", "words"),
    [
        (b"", None, "not JSON"),
        (b"{", None, "not JSON"),
        (b"\xff", None, "not JSON"),
        (b"[" * 100_000, None, "not JSON"),
        (b"[]", None, "not JSON, an object in UTF-8"),
        (b"{}", "3", "Inference-Header-Content-Length is '3', but the body has 2 bytes"),
        (b"{}", "-1", "Inference-Header-Content-Length is '-1'"),
        (b"{}x", "2", "declare 0 bytes of binary data, but 1 follow"),
        (body(id=7), None, "The request has a 'id' that is not a string"),
        (body(inputs={}), None, "'inputs' that is not a list"),
        (body(inputs=[1]), None, "'inputs' whose entries are not all objects"),
        (body(outputs=[{}]), None, "A requested output has no 'name'"),
        (body(outputs=[{"name": "a", "parameters": {"classification": "two"}}]), None, "'classification' that is not an integer"),
        (body(parameters={"binary_data_output": 1}), None, "'binary_data_output' that is not true or false"),
        (body(inputs=[{"name": "image"}]), None, "Input 'image' has no 'datatype'"),
        (body(inputs=[{k: v for k, v in TENSOR.items() if k != "data"}]), None, "Input 'image' has no 'data'"),
        (body(inputs=[TENSOR, TENSOR]), None, "Input 'image' is given twice"),
        (body(inputs=[BINARY]), None, "declares 2 bytes of binary data, but 0 follow"),
        (body(inputs=[{**BINARY, "parameters": {"binary_data_size": -1}}]), None, "declares -1 bytes"),
    ],
)
def test_malformed_bodies_are_refused(content: bytes, length: str | None, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        decode_request("m", "", content, length)


FIELDS = st.sampled_from(["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "binary_data_size", "id"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=50)
@given(json_values)
def test_any_json_is_read_or_refused_and_never_crashes(value: Any) -> None:
    for holder in (value, {"inputs": [value]}, {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": value}]}):
        with suppress(InvalidRequest, Unsupported):
            decode_request("m", "", json.dumps(holder).encode(), None)


def test_shared_memory_is_not_offered() -> None:
    shared = {"parameters": {"shared_memory_region": "r"}}
    for content in (body(inputs=[{**TENSOR, **shared}]), body(outputs=[{"name": "a", **shared}])):
        with pytest.raises(Unsupported, match="shared memory, which this server does not offer"):
            decode_request("m", "", content, None)


def test_a_response_mixes_json_and_binary_in_order() -> None:
    outputs = {"b": np.array([[1.5]], np.float32), "a": np.array([[2]], np.uint8), "c": np.array([[b"x"]], object)}
    _, wanted = decode_request(
        "m", "", body(outputs=[{"name": n, "parameters": {"binary_data": n != "c"}} for n in outputs]), None
    )
    encoded = encode_response(InferResponse("m", "1", "7", outputs, ()), wanted)
    assert encoded.json_bytes is not None
    assert json.loads(encoded.body[: encoded.json_bytes]) == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "b", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}},
            {"name": "a", "datatype": "UINT8", "shape": [1, 1], "parameters": {"binary_data_size": 1}},
            {"name": "c", "datatype": "BYTES", "shape": [1, 1], "data": ["x"]},
        ],
    }
    assert encoded.body[encoded.json_bytes :] == np.float32(1.5).tobytes() + b"\x02"


def test_bytes_that_are_no_text_need_binary() -> None:
    with pytest.raises(InvalidRequest, match="Output 'y' is not UTF-8 text; request it as binary data"):
        to_values("y", np.array([b"\xff"], object))
