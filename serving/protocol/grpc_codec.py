"""Inference requests and responses as gRPC messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import service_pb2

from serving.dtypes import dtype_name
from serving.engines.base import Array
from serving.errors import InvalidRequest, Unsupported
from serving.messages import InferRequest, InferResponse, RequestedOutput
from serving.protocol.tensors import from_bytes, from_values, to_bytes

_pb: Any = service_pb2
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


def decode_request(message: Any) -> InferRequest:
    """Return the request that a ModelInferRequest holds. Raises InvalidRequest, Unsupported."""
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequest(
            f"The request has {len(message.inputs)} inputs, but {len(raw)} raw_input_contents; give one for each."
        )
    inputs: dict[str, Array] = {}
    for position, tensor in enumerate(message.inputs):
        if tensor.name in inputs:
            raise InvalidRequest(f"Input {tensor.name!r} is given twice.")
        inputs[tensor.name] = _input(tensor, raw[position] if raw else None)
    return InferRequest(
        model=message.model_name,
        version=message.model_version,
        id=message.id,
        inputs=inputs,
        outputs=tuple(_output(output) for output in message.outputs),
        parameters=_parameters(message.parameters),
    )


def encode_response(response: InferResponse) -> Any:
    """Return the ModelInferResponse, the outputs raw and in order."""
    message = _pb.ModelInferResponse(model_name=response.model, model_version=response.version, id=response.id)
    for name, array in response.outputs.items():
        message.outputs.add(name=name, datatype=dtype_name(array), shape=array.shape)
        message.raw_output_contents.append(to_bytes(array))
    return message


def _input(tensor: Any, raw: bytes | None) -> Array:
    _refuse_shared_memory(tensor)
    shape = list(tensor.shape)
    if raw is None:
        return from_values(tensor.name, tensor.datatype, shape, _typed_values(tensor))
    if tensor.HasField("contents"):
        raise InvalidRequest(f"Input {tensor.name!r} has both raw and typed contents; give one of them.")
    return from_bytes(tensor.name, tensor.datatype, shape, memoryview(raw))


def _typed_values(tensor: Any) -> list[Any]:
    field = _CONTENTS.get(tensor.datatype)
    for present, _ in tensor.contents.ListFields():
        if present.name != field:
            wanted = field or "raw_input_contents"
            raise InvalidRequest(f"Input {tensor.name!r} is {tensor.datatype}, but comes in {present.name}; use {wanted}.")
    return list(getattr(tensor.contents, field)) if field else []


def _output(output: Any) -> RequestedOutput:
    _refuse_shared_memory(output)
    return RequestedOutput(output.name, output.parameters["classification"].int64_param if _is_classified(output) else 0)


def _is_classified(output: Any) -> bool:
    return "classification" in output.parameters


def _parameters(parameters: Any) -> Mapping[str, object]:
    chosen = {key: value.WhichOneof("parameter_choice") for key, value in parameters.items()}
    return {key: getattr(parameters[key], field) for key, field in chosen.items() if field is not None}


def _refuse_shared_memory(tensor: Any) -> None:
    if "shared_memory_region" in tensor.parameters:
        raise Unsupported(f"Tensor {tensor.name!r} is in shared memory, which this server does not offer; send the data.")
