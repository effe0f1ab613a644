"""How much memory gRPC messages take, each in a process of its own: its most, beyond what there was with the message alone."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message_factory import GetMessageClass
from tritonclient.grpc import service_pb2

from contract.errors import EspalierError
from serving.protocol.grpc.codec import decode_request, output_slots
from serving.protocol.grpc.cost import schema_of
from serving.protocol.grpc.service import MessageKind, Received
from serving.protocol.grpc.wire import header
from serving.protocol.message_limits import USUAL

pb: Any = service_pb2
KIND = MessageKind(GetMessageClass(pb.ModelInferRequest.DESCRIPTOR), schema_of(pb.ModelInferRequest.DESCRIPTOR))


def delimited(number: int, payload: bytes) -> bytes:
    """Return a field that holds `payload`."""
    return header(number, len(payload)) + payload


def tensor(datatype: str, count: int, number: int, payload: bytes, *, packed: bool = True) -> bytes:
    """Return a message with one input, whose contents have a field of `payload`."""
    contents = delimited(5, delimited(number, payload) if packed else payload)
    head = pb.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=[count]).SerializeToString()
    return delimited(5, head + contents)


def raw(datatype: str, count: int, data: bytes) -> bytes:
    """Return a message with one input, whose raw contents are `data`."""
    request = pb.ModelInferRequest(raw_input_contents=[data])
    request.inputs.add(name="x", datatype=datatype, shape=[count])
    return bytes(request.SerializeToString())


MILLION = 1_000_000
# Of each kind the dearest that is let through, or what is not.
MESSAGES: dict[str, Callable[[], bytes]] = {
    "empty inputs": lambda: b"\x2a\x00" * 8 * MILLION,
    "empty inputs, as many as are let through": lambda: b"\x2a\x00" * USUAL.fields,
    "empty outputs": lambda: b"\x32\x00" * 8 * MILLION,
    "empty parameters": lambda: b"\x22\x00" * 8 * MILLION,
    "inputs with parameters": lambda: delimited(5, delimited(4, b"")) * MILLION,
    "parameters of one input": lambda: delimited(5, delimited(4, b"") * 4 * MILLION),
    "empty raw contents": lambda: b"\x3a\x00" * 8 * MILLION,
    "unknown fields": lambda: b"\x60\x00" * 8 * MILLION,
    "a shape of many numbers": lambda: delimited(5, delimited(3, b"\x01" * 8 * MILLION)),
    "a shape that is not packed": lambda: delimited(5, b"\x18\x01" * 4 * MILLION),
    "a long name": lambda: delimited(1, b"x" * 16 * MILLION),
    "a damaged message behind inputs": lambda: b"\x2a\x00" * 4 * MILLION + b"\xff",
    "BOOL": lambda: tensor("BOOL", 8 * MILLION, 1, b"\x01" * 8 * MILLION),
    "INT8": lambda: tensor("INT8", 8 * MILLION, 2, b"\x01" * 8 * MILLION),
    "INT32": lambda: tensor("INT32", 8 * MILLION, 2, b"\x01" * 8 * MILLION),
    "INT64": lambda: tensor("INT64", 8 * MILLION, 3, b"\x01" * 8 * MILLION),
    "INT64 of all lengths": lambda: tensor("INT64", 10**6, 3, b"\x01\x81\x81\x01" * (MILLION // 2)),
    "UINT8": lambda: tensor("UINT8", 8 * MILLION, 4, b"\x01" * 8 * MILLION),
    "UINT64": lambda: tensor("UINT64", 8 * MILLION, 5, b"\x01" * 8 * MILLION),
    "negative INT8": lambda: tensor("INT8", MILLION, 2, (b"\xff" * 9 + b"\x01") * MILLION),
    "FP32": lambda: tensor("FP32", 4 * MILLION, 6, np.ones(4 * MILLION, np.float32).tobytes()),
    "FP64": lambda: tensor("FP64", 2 * MILLION, 7, np.ones(2 * MILLION).tobytes()),
    "values that are not packed": lambda: tensor("INT64", 4 * MILLION, 3, b"\x18\x01" * 4 * MILLION, packed=False),
    "values for another shape": lambda: tensor("INT64", 2, 3, b"\x01" * 8 * MILLION),
    "strings": lambda: tensor("BYTES", USUAL.strings, 8, delimited(8, b"ab") * USUAL.strings, packed=False),
    "more strings": lambda: tensor("BYTES", 4 * MILLION, 8, delimited(8, b"ab") * 4 * MILLION, packed=False),
    "raw strings": lambda: raw("BYTES", USUAL.strings, b"\x02\x00\x00\x00ab" * USUAL.strings),
    "raw numbers": lambda: raw("UINT8", 32 * MILLION, bytes(32 * MILLION)),
}


def decode(data: bytes) -> object:
    """Return what is held of a message while its request is answered, or the name of the error."""
    received = Received(data, KIND)
    del data
    try:
        message, tensors = received.decode_tensors()
        return decode_request(message, tensors=tensors), output_slots(message, None)
    except EspalierError as error:
        return type(error).__name__


def measure(make: Callable[[], bytes]) -> tuple[int, int, str]:
    """Return the size of a message, the bytes that it took beside itself at most, and what became of it."""
    for small in (tensor("INT64", 10_000, 3, b"\x01" * 10_000), raw("BYTES", 1, b"\x00" * 4), b"\x2a\x00" * 5000):
        decode(small)  # the code is there
    data = make()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what made it is free, and would be taken first
    resident = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    held = decode(data)
    return len(data), _status("VmHWM") - resident, held if isinstance(held, str) else "OK"


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Print a line for each message."""
    for name, make in MESSAGES.items():
        if os.fork() == 0:
            print(*measure(make), name, sep="\t", flush=True)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    main()
