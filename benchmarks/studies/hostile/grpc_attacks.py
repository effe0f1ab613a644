"""Attacks on the reader of gRPC messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from benchmarks.studies.hostile.attack import Attack, promised
from benchmarks.studies.hostile.send import at_once, call
from serving.protocol.grpc.wire import header

_pb: Any = service_pb2
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_REFUSED = frozenset(("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "NOT_FOUND"))
_HEALTH = "/grpc.health.v1.Health/"


def grpc_attacks(task: str, size: int) -> Iterator[Attack]:
    """Yield attacks with messages of about `size` bytes for a model `task`, all of them to be refused."""
    for name, message in hostile_messages(task, size):
        yield Attack(f"gRPC, {name}", call(_INFER, message), _REFUSED, promised(text=len(message)))
    for name, message in hostile_messages(task, size):
        if name in ("empty inputs", "empty strings"):
            yield Attack(f"gRPC, {name}, gzip", call(_INFER, message, gzip=True), _REFUSED, promised(text=len(message)))
    named = _field(1, b"n" * size)  # of a model, or of a service: the first field of most messages
    for method in ("ModelReady", "ModelMetadata", "RepositoryIndex", "SystemSharedMemoryRegister", "RepositoryModelLoad"):
        play = call(f"/inference.GRPCInferenceService/{method}", named)
        yield Attack(f"gRPC, {method} of a long name", play, _REFUSED | {"UNAUTHENTICATED", "UNIMPLEMENTED"}, promised(text=size))
    yield Attack("gRPC, Check of a long name", call(_HEALTH + "Check", named), _REFUSED, promised(text=size))
    watch = at_once(12, call(_HEALTH + "Watch", named, stream=True))
    yield Attack("gRPC, twelve Watch of long names", watch, _REFUSED | {"DEADLINE_EXCEEDED"}, 12 * promised(text=size))


def hostile_messages(task: str, size: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and messages of ModelInfer of about `size` bytes."""
    head = _pb.ModelInferRequest(model_name=task).SerializeToString()
    yield "empty inputs", head + b"\x2a\x00" * (size // 2)
    yield "empty outputs", head + b"\x32\x00" * (size // 2)
    yield "empty parameters", head + b"\x22\x00" * (size // 2)
    yield "empty raw contents", head + b"\x3a\x00" * (size // 2)
    yield "unknown fields", head + b"\xa0\x3e\x00" * (size // 3)
    yield "groups in groups", head + b"\xa3\x3e" * (size // 2)
    yield "no bytes of varints", head + b"\xff" * size
    tensor = _pb.ModelInferRequest.InferInputTensor(name="image", datatype="BYTES", shape=[size // 2]).SerializeToString()
    yield "empty strings", head + _field(5, tensor + _field(5, b"\x42\x00" * (size // 2)))
    yield "integers one by one", head + _field(5, _tensor("UINT8", size // 2) + _field(5, b"\x20\x01" * (size // 2)))
    yield "integers packed", head + _field(5, _tensor("UINT8", size) + _field(5, _field(4, b"\x01" * size)))
    yield "truths packed", head + _field(5, _tensor("BOOL", size) + _field(5, _field(1, b"\x01" * size)))
    floats = np.ones(size // 4, "<f4").tobytes()
    yield "floats packed", head + _field(5, _tensor("FP32", size // 4) + _field(5, _field(6, floats)))
    yield "a long shape", head + _field(5, _field(3, b"\x01" * size))
    yield "tensor parameters", head + _field(5, b"\x22\x00" * (size // 2))
    yield "contents again and again", head + _field(5, b"\x2a\x00" * (size // 2))
    yield "raw bytes", head + _field(5, _tensor("UINT8", size)) + _field(7, bytes(size))
    yield "raw strings", head + _field(5, _tensor("BYTES", size // 4)) + _field(7, bytes(size))
    yield "a long name", _field(1, b"n" * size)


def _tensor(datatype: str, count: int) -> bytes:
    message = _pb.ModelInferRequest.InferInputTensor(name="image", datatype=datatype, shape=[count])
    return bytes(message.SerializeToString())


def _field(number: int, data: bytes) -> bytes:
    """Return a field of the type string, bytes or message, as it goes over the wire."""
    return header(number, len(data)) + data
