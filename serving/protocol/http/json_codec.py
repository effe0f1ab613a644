"""An inference request or response as an HTTP body: JSON, optionally followed by the tensors in binary.

The header Inference-Header-Content-Length says how many bytes the JSON takes; the tensors that have a `binary_data_size` follow in
the order of the JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from contract.dtypes import BYTES, Array, dtype_name
from contract.errors import InvalidRequest
from contract.tensors import LONG_VALUES, check_strings, checked_shape, from_bytes, to_bytes, values_text
from serving.process.work_pool import Check, no_check, until
from serving.protocol.fields import decimal, objects, optional, parameters_of, required
from serving.protocol.http.json_request import JsonValues, read_request
from serving.protocol.message_limits import USUAL, MessageLimits
from serving.protocol.shared_memory import RequestMemory, SharedMemory, Slot
from serving.requests import InferRequest, InferResponse, RequestedOutput, answer_parameters, read_options

_WHERE = "The request"
_JSON_VALUE_BYTES = 22  # of a float32 as JSON, with its comma; of most strings, too
_LONG_BYTES = 32 * 1024  # of JSON: a millisecond or two


@dataclass(frozen=True)
class _OutputFormat:
    """Which outputs the client wants in binary: by name, and `default` for those that it did not name; and which in shared memory."""

    binary: Mapping[str, bool]
    default: bool = False
    slots: Mapping[str, Slot] = field(default_factory=dict)

    def is_binary(self, output: str) -> bool:
        """Whether `output` goes into the binary part."""
        return output not in self.slots and self.binary.get(output, self.default)


@dataclass(frozen=True)
class EncodedResponse:
    """A body, and how much of it is JSON when a binary part follows (None: all of it)."""

    body: bytes
    json_bytes: int | None


def is_slow_to_decode(body: bytes, header_length: str | None) -> bool:
    """Whether to decode `body` takes so long that nobody else should wait for it. Raises InvalidRequest for a wrong `header_length`."""
    if len(body) <= _LONG_BYTES:
        return False
    size = _json_size(body, header_length)
    # Binary tensors take no time, but for strings, which are cut out one by one; their type can be hidden behind an escape only.
    return size > _LONG_BYTES or body.find(BYTES.encode(), 0, size) >= 0 or body.find(b"\\", 0, size) >= 0


def expected_bytes(response: InferResponse, wanted: _OutputFormat) -> int:
    """Return about how many bytes the body of `response` will have: what a tensor takes in binary, or so many for each value in JSON."""
    return sum(
        [array.nbytes if wanted.is_binary(name) else _JSON_VALUE_BYTES * array.size for name, array in response.outputs.items()]
    )


def is_slow_to_encode(response: InferResponse, wanted: _OutputFormat) -> bool:
    """Whether to encode `response` takes so long."""
    if sum([array.size for array in response.outputs.values()]) <= LONG_VALUES:
        return False
    arrays = response.outputs.items()
    return sum(array.size for name, array in arrays if array.dtype.kind == "O" or not wanted.is_binary(name)) > LONG_VALUES


def decode_request(
    model: str,
    version: str,
    body: bytes,
    header_length: str | None,
    memory: SharedMemory | None = None,
    *,
    arrived: float | None = None,
    check: Check = no_check,
    limits: MessageLimits = USUAL,
) -> tuple[InferRequest, _OutputFormat]:
    """Return the request in `body` and how its outputs are to be written.

    arrived: when, in time.monotonic seconds, from which its `timeout` counts; None: now. check: called between pieces of a long one.
    Raises InvalidRequest, Unsupported, UnknownRegion, DeadlineExceeded, and what `check` raises.
    """
    size = _json_size(body, header_length)
    header = read_request(body if size == len(body) else body[:size], limits)
    parameters = parameters_of(header, _WHERE)
    deadline = read_options(parameters, now=arrived).deadline
    wanted = objects(header, "outputs", _WHERE)
    shared = RequestMemory(memory)
    identity = optional(header, "id", str, _WHERE, "")
    blob = memoryview(body)[size:]
    inputs = _inputs(objects(header, "inputs", _WHERE), blob, shared, until(deadline, check), limits)
    asked = [_output(output) for output in wanted]
    outputs = tuple([output for output, _ in asked])
    request = InferRequest(model, inputs, outputs, version, identity, parameters, deadline)
    default = optional(parameters, "binary_data_output", bool, _WHERE, False)
    binary = {output.name: optional(own, "binary_data", bool, f"Tensor {output.name!r}", default) for output, own in asked}
    slots = {output.name: shared.find(own, f"Output {output.name!r}") for output, own in asked}
    return request, _OutputFormat(binary, default, {name: slot for name, slot in slots.items() if slot is not None})


def encode_response(response: InferResponse, wanted: _OutputFormat, check: Check = no_check) -> EncodedResponse:
    """Return the body of `response`. check: called between pieces of a long one.

    JSON has no word for floats that are not finite. As Triton does, and Python's json reads, they are written NaN, Infinity and
    -Infinity; a client whose parser is stricter asks for binary data.
    """
    header: dict[str, Any] = {"model_name": response.model, "model_version": response.version}
    if response.id:
        header["id"] = response.id
    if response.errors or response.cached:
        header["parameters"] = answer_parameters(response)
    blobs = {name: to_bytes(array) for name, array in response.outputs.items() if wanted.is_binary(name)}
    head = [msgspec.json.encode(header)[:-1], b',"outputs":[']
    for number, (name, array) in enumerate(response.outputs.items()):
        head += [b"," if number else b"", *_describe(name, array, blobs.get(name), wanted.slots.get(name), check)]
    head.append(b"]}")
    size = sum(map(len, head))
    return EncodedResponse(b"".join([*head, *blobs.values()]), size if blobs else None)


def _json_size(body: bytes, header_length: str | None) -> int:
    if header_length is None:
        return len(body)
    size = decimal(header_length)
    if size is None or size > len(body):
        raise InvalidRequest(f"Inference-Header-Content-Length is {header_length!r}, but the body has {len(body)} bytes.")
    return size


def _inputs(
    entries: list[dict[str, Any]], blob: memoryview, shared: RequestMemory, check: Check, limits: MessageLimits
) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    used = strings = 0
    for entry in entries:
        name = required(entry, "name", str, "An input")
        if name in inputs:
            raise InvalidRequest(f"Input {name!r} is given twice.")
        if entry.get("datatype") == BYTES:
            check_strings(strings := strings + math.prod(checked_shape(name, entry.get("shape"))), limits.strings)
        parameters = _parameters(entry)
        size = optional(parameters, "binary_data_size", int, f"Tensor {name!r}", None)
        inputs[name] = _input(name, entry, parameters, size, blob[used:], shared, check)
        used += size or 0
    if used != len(blob):
        raise InvalidRequest(f"The inputs declare {used} bytes of binary data, but {len(blob)} follow the JSON.")
    return inputs


def _input(
    name: str,
    entry: dict[str, Any],
    parameters: dict[str, Any],
    size: int | None,
    rest: memoryview,
    shared: RequestMemory,
    check: Check,
) -> Array:
    where = f"Input {name!r}"
    datatype, shape = required(entry, "datatype", str, where), required(entry, "shape", list, where)
    data = shared.read(parameters, where) if parameters else None
    if data is not None:
        if size is not None or entry.get("data") is not None:
            raise InvalidRequest(f"{where} is in shared memory and comes with the request, too; give one of them.")
        return from_bytes(name, datatype, shape, memoryview(data))
    if size is None:
        if not isinstance(values := entry.get("data"), JsonValues):
            raise InvalidRequest(f"{where} has a 'data' that is not a list." if "data" in entry else f"{where} has no 'data'.")
        return values.array(name, datatype, shape, check)
    if not 0 <= size <= len(rest):
        raise InvalidRequest(f"{where} declares {size} bytes of binary data, but {len(rest)} follow.")
    return from_bytes(name, datatype, shape, rest[:size])


def _output(entry: dict[str, Any]) -> tuple[RequestedOutput, dict[str, Any]]:
    """Return an output that is requested, and its parameters."""
    name = required(entry, "name", str, "A requested output")
    parameters = _parameters(entry)
    return RequestedOutput(name, optional(parameters, "classification", int, f"Tensor {name!r}", 0)), parameters


def _parameters(entry: dict[str, Any]) -> dict[str, Any]:
    return parameters_of(entry, f"Tensor {entry.get('name')!r}")


def _describe(name: str, array: Array, blob: bytes | None, slot: Slot | None, check: Check) -> Iterator[bytes]:
    """Yield the JSON of one output, in pieces."""
    description: dict[str, Any] = {"name": name, "datatype": dtype_name(array), "shape": list(array.shape)}
    if slot is not None:
        slot.write(name, to_bytes(array))
        yield msgspec.json.encode(description)  # and no parameters, where clients look for the size of binary data
    elif blob is not None:
        yield msgspec.json.encode(description | {"parameters": {"binary_data_size": len(blob)}})
    else:
        yield msgspec.json.encode(description)[:-1]
        yield b',"data":['
        yield from values_text(name, array, check)
        yield b"]}"
