"""Requests to Triton and its answers, as messages of the v2 protocol."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tritonclient.grpc import service_pb2

from contract.dtypes import Array, dtype_name
from contract.errors import InvalidRequest
from contract.tensors import from_bytes, to_bytes
from serving.engines.base import Call
from serving.engines.triton.shared_buffers import SharedTensor
from serving.errors import DeadlineExceeded, EngineError

_pb: Any = service_pb2


def encode(
    model: str,
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    call: Call,
    left_s: float | None,
    places: Mapping[str, SharedTensor] | None = None,
) -> Any:
    """Return the ModelInferRequest that asks `model` for `outputs` alone. left_s: of the request's time; None: it has all the time.

    places: of inputs that lie in shared memory instead of in the message. Triton uses `timeout` and `priority` for models whose queue
    policy and priority levels say so.
    """
    message = _pb.ModelInferRequest(model_name=model)
    for name, array in inputs.items():
        tensor = message.inputs.add(name=name, datatype=dtype_name(array), shape=array.shape)
        place = (places or {}).get(name)
        if place is None:
            message.raw_input_contents.append(to_bytes(array))
        else:
            _refer(tensor, place)
    for name in outputs:
        message.outputs.add(name=name)
    if left_s is not None:
        message.parameters["timeout"].int64_param = max(1, int(left_s * 1e6))
    if call.priority > 0:
        message.parameters["priority"].uint64_param = call.priority
    return message


def _refer(tensor: Any, place: SharedTensor) -> None:
    tensor.parameters["shared_memory_region"].string_param = place.region
    tensor.parameters["shared_memory_offset"].int64_param = place.offset
    tensor.parameters["shared_memory_byte_size"].int64_param = place.byte_size


def decode(message: Any, model: str, outputs: Sequence[str], rows: int) -> dict[str, Array]:
    """Return the tensors of a ModelInferResponse, each of shape (rows, ...). Raises EngineError unless it has just `outputs`."""
    found: dict[str, Array] = {}
    try:
        for tensor, raw in zip(message.outputs, message.raw_output_contents, strict=True):
            found[tensor.name] = from_bytes(tensor.name, tensor.datatype, list(tensor.shape), memoryview(raw))
    except (InvalidRequest, ValueError) as error:
        raise EngineError(f"Triton's answer for model {model!r} cannot be read.") from error
    if any(name not in found or found[name].ndim == 0 or len(found[name]) != rows for name in outputs):
        shapes = ", ".join(f"{name!r} {list(array.shape)}" for name, array in found.items()) or "nothing"
        raise EngineError(f"Triton answered {shapes} for {rows} rows of model {model!r}.")
    return {name: found[name] for name in outputs}


def seconds_left(call: Call) -> float | None:
    """Return how much time `call` has; None: all. Raises DeadlineExceeded when it has none."""
    if call.deadline is None:
        return None
    left_s = call.deadline - time.monotonic()
    if left_s <= 0:
        raise DeadlineExceeded
    return left_s
