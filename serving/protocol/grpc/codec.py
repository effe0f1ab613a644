"""Inference requests and responses as gRPC messages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from contract.dtypes import BYTES, Array, dtype_name
from contract.errors import InvalidRequest
from contract.tensors import LONG_VALUES, MAX_AXES, check_strings, from_bytes, from_numbers, from_strings, to_buffer
from serving.process.work_pool import Check, no_check
from serving.protocol.fields import optional
from serving.protocol.grpc.contents import DTYPES, Contents, Tensors
from serving.protocol.grpc.cost import QUICK_DATA_BYTES
from serving.protocol.grpc.wire import header
from serving.protocol.message_limits import USUAL, MessageLimits
from serving.protocol.shared_memory import RequestMemory, SharedMemory, Slot, is_shared
from serving.requests import InferRequest, InferResponse, RequestedOutput, answer_parameters

_pb: Any = service_pb2
_MOST_WRITTEN = 4096  # of each kind that are remembered
_RAW_OUTPUTS = _pb.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number
_STREAMED = _pb.ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number
# Which field of InferTensorContents holds the values of a datatype; the others must come raw.
_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def is_slow_to_decode(message: Any, tensors: Tensors | None = None) -> bool:
    """Whether to decode a ModelInferRequest takes so long that nobody else should wait for it: many values that are not raw numbers."""
    typed = not (message.raw_input_contents if tensors is None else tensors.raw)
    return any((typed or tensor.datatype == BYTES) and _value_count(tensor.shape) > LONG_VALUES for tensor in message.inputs)


def is_slow_to_encode(response: InferResponse) -> bool:
    """Whether to encode `response` takes so long: many strings, or many bytes."""
    arrays = response.outputs.values()
    if sum([array.nbytes for array in arrays]) > QUICK_DATA_BYTES:
        return True
    return sum([array.size for array in arrays if array.dtype.kind == "O"]) > LONG_VALUES


def decode_request(
    message: Any,
    memory: SharedMemory | None = None,
    deadline: float | None = None,
    check: Check = no_check,
    tensors: Tensors | None = None,
    limits: MessageLimits = USUAL,
) -> InferRequest:
    """Return the request that a ModelInferRequest holds. Raises InvalidRequest, Unsupported, UnknownRegion.

    deadline: of the call, in time.monotonic seconds. check: called before each input, and each piece of a long one. tensors: the data that
    were taken out of the message. limits: of what it holds.
    The raw contents belong to the inputs in their order, without those that are in shared memory.
    """
    tensors = tensors or Tensors(message.raw_input_contents, {})
    raw = tensors.raw
    sent = sum([not is_shared(tensor.parameters) for tensor in message.inputs])
    if raw and len(raw) != sent:
        raise InvalidRequest(f"The request has {sent} inputs, but {len(raw)} raw_input_contents; give one for each.")
    remaining, shared = iter(raw), RequestMemory(memory)
    inputs: dict[str, Array] = {}
    strings = 0
    for place, tensor in enumerate(message.inputs):
        check()
        name = tensor.name
        if tensor.datatype == BYTES:
            check_strings(strings := strings + _value_count(tensor.shape), limits.strings)
        if name in inputs:
            raise InvalidRequest(f"Input {name!r} is given twice.")
        parameters = read_parameters(tensor.parameters)
        data = shared.read(parameters, f"Input {name!r}") if parameters else None
        inputs[name] = _input(tensor, tensors.contents.get(place), next(remaining, None) if data is None else data, check)
    return InferRequest(
        model=message.model_name,
        version=message.model_version,
        id=message.id,
        inputs=inputs,
        outputs=tuple(_output(output) for output in message.outputs),
        parameters=read_parameters(message.parameters),
        deadline=deadline,
    )


def output_slots(message: Any, memory: SharedMemory | None) -> Mapping[str, Slot]:
    """Return where the outputs go that the client wants in shared memory. Raises InvalidRequest, Unsupported, UnknownRegion."""
    if not message.outputs:
        return {}
    shared = RequestMemory(memory)
    slots = {
        output.name: shared.find(read_parameters(output.parameters), f"Output {output.name!r}") for output in message.outputs
    }
    return {name: slot for name, slot in slots.items() if slot is not None}


def encode_response(response: InferResponse, slots: Mapping[str, Slot], *, in_stream: bool = False) -> bytes:
    """Return the ModelInferResponse on the wire, the outputs raw and in order; those with a slot go there, and leave an empty place.

    in_stream: in a ModelStreamInferResponse, and as the last that comes for its request. The values are copied once.
    """
    pieces: list[Any] = [_written_model(response.model, response.version)]
    if response.id or response.errors or response.cached or in_stream:
        pieces.append(_written_extras(response, in_stream))
    pieces += [_written_output(name, dtype_name(array), array.shape) for name, array in response.outputs.items()]
    for name, array in response.outputs.items():
        data = to_buffer(array)
        if name in slots:
            slots[name].write(name, bytes(data))
            data = b""  # clients find the others by position
        pieces += (header(_RAW_OUTPUTS, len(data)), data)
    if in_stream:
        pieces.insert(0, header(_STREAMED, sum(map(len, pieces))))
    return b"".join(pieces)


# What is the same in answer after answer is written once. The parts of a message, one after the other, are the message.


@lru_cache(_MOST_WRITTEN)
def _written_model(model: str, version: str) -> bytes:
    return bytes(_pb.ModelInferResponse(model_name=model, model_version=version).SerializeToString())


@lru_cache(_MOST_WRITTEN)
def _written_output(name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
    message = _pb.ModelInferResponse()
    message.outputs.add(name=name, datatype=datatype, shape=shape)
    return bytes(message.SerializeToString())


def _written_extras(response: InferResponse, in_stream: bool) -> bytes:
    """Return what few answers have: the request's id, what the answer says besides, and that no more comes in a stream."""
    message = _pb.ModelInferResponse(id=response.id)
    for key, text in answer_parameters(response).items():
        message.parameters[key].string_param = text
    if in_stream:
        message.parameters["triton_final_response"].bool_param = True  # by which clients of streams know that no more comes
    return bytes(message.SerializeToString())


def _input(tensor: Any, contents: Contents | None, raw: bytes | memoryview | None, check: Check) -> Array:
    """contents: that were taken out of the message."""
    if raw is None:
        return _typed(tensor, contents, check)
    if contents is not None or tensor.HasField("contents"):
        raise InvalidRequest(f"Input {tensor.name!r} has both raw and typed contents; give one of them.")
    return from_bytes(tensor.name, tensor.datatype, list(tensor.shape), memoryview(raw))


def _typed(tensor: Any, contents: Contents | None, check: Check) -> Array:
    shape = list(tensor.shape)
    field = _checked_field(
        tensor, [found.name for found, _ in tensor.contents.ListFields()] if contents is None else contents.spans
    )
    if tensor.datatype == BYTES:
        return from_strings(tensor.name, shape, tensor.contents.bytes_contents if contents is None else contents.strings())
    if contents is not None and field in contents.spans:
        return from_numbers(tensor.name, tensor.datatype, shape, contents.count(field), contents.numbers(field, check))
    values = np.asarray(getattr(tensor.contents, field), DTYPES[field]) if field else np.empty(0)
    return from_numbers(tensor.name, tensor.datatype, shape, len(values), [values])


def _checked_field(tensor: Any, present: Iterable[str]) -> str:
    """Return the name of the field that holds the values, "" for a datatype that has none."""
    field = _CONTENTS.get(tensor.datatype, "")
    for name in present:
        if name != field:
            wanted = field or "raw_input_contents"
            raise InvalidRequest(f"Input {tensor.name!r} is {tensor.datatype}, but comes in {name}; use {wanted}.")
    return field


def _value_count(shape: Sequence[int]) -> int:
    return math.prod(shape) if len(shape) <= MAX_AXES else 0  # it will be refused; nobody multiplies millions of numbers


def _output(output: Any) -> RequestedOutput:
    where = f"Output {output.name!r}"
    return RequestedOutput(output.name, optional(read_parameters(output.parameters), "classification", int, where, 0))


def read_parameters(parameters: Any) -> Mapping[str, object]:
    """Return a message's map of parameters; those without a value are not there."""
    if not parameters:
        return {}
    chosen = {key: value.WhichOneof("parameter_choice") for key, value in parameters.items()}
    return {key: getattr(parameters[key], field) for key, field in chosen.items() if field is not None}
