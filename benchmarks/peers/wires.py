"""How each rival is asked: prepared bytes over a connection that stays open, as little client as can be."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from benchmarks.harness.http_wire import HttpConnection, request_bytes
from contract.dtypes import Array

_pb: Any = service_pb2
_BOUNDARY = "benchmark-boundary"
_MAX_BYTES = 64 * 1024 * 1024

_Ask = Callable[[bytes], Awaitable[bytes]]


class RivalWire(Protocol):
    """A protocol. port: on the loopback."""

    def request(self, image: Array, tasks: Sequence[str]) -> bytes:
        """Return the request for `tasks`."""
        ...

    def connect(self, port: int) -> AbstractAsyncContextManager[_Ask]:
        """Open a connection, and yield what sends a request and returns the answer. It raises OSError, EOFError or RuntimeError."""
        ...

    def read(self, answer: bytes) -> dict[str, Array]:
        """Return the scores by task, (1, classes), float32. Raises ValueError, KeyError or TypeError for what is no answer."""
        ...


class _Http:
    def connect(self, port: int) -> AbstractAsyncContextManager[_Ask]:
        return _http_connection(port)


class _Json(_Http):
    def read(self, answer: bytes) -> dict[str, Array]:
        return {task: np.array([scores], np.float32) for task, scores in json.loads(answer).items()}


@dataclass(frozen=True)
class RawBody(_Json):
    """The image as the body, the tasks in the query, JSON in return."""

    def request(self, image: Array, tasks: Sequence[str]) -> bytes:
        """Return the request for `tasks`."""
        path = f"/predict?tasks={','.join(tasks)}"
        return request_bytes("POST", path, "Content-Type: application/octet-stream", body=image.tobytes())


@dataclass(frozen=True)
class Form(_Json):
    """A form with the image as a file and the tasks as text, JSON in return."""

    def request(self, image: Array, tasks: Sequence[str]) -> bytes:
        """Return the request for `tasks`."""
        file = b'name="image"; filename="image"\r\nContent-Type: application/octet-stream\r\n\r\n' + image.tobytes()
        parts = [b'name="tasks"\r\n\r\n' + ",".join(tasks).encode(), file]
        start = f"--{_BOUNDARY}\r\nContent-Disposition: form-data; ".encode()
        body = b"".join(start + part + b"\r\n" for part in parts) + f"--{_BOUNDARY}--\r\n".encode()
        return request_bytes("POST", "/predict", f"Content-Type: multipart/form-data; boundary={_BOUNDARY}", body=body)


@dataclass(frozen=True)
class V2Http(_Http):
    """The v2 protocol over HTTP, tensors in binary: the model all_tasks, the tasks as requested outputs. input_name: of the model."""

    input_name: str

    def request(self, image: Array, tasks: Sequence[str]) -> bytes:
        """Return the request for `tasks`."""
        tensor = {"name": self.input_name, "datatype": "UINT8", "shape": list(image.shape)}
        outputs = [{"name": task, "parameters": {"binary_data": True}} for task in tasks]
        inputs = [{**tensor, "parameters": {"binary_data_size": image.nbytes}}]
        head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
        length = f"Inference-Header-Content-Length: {len(head)}"
        return request_bytes("POST", "/v2/models/all_tasks/infer", length, body=head + image.tobytes())

    def read(self, answer: bytes) -> dict[str, Array]:
        """Return the scores by task."""
        head, end = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
        found = {}
        for output in head["outputs"]:
            size = output["parameters"]["binary_data_size"]
            found[output["name"]] = np.frombuffer(answer[end : end + size], np.float32).reshape(output["shape"])
            end += size
        return found


@dataclass(frozen=True)
class V2Grpc:
    """The v2 protocol over gRPC. as_bytes: the image is one element of a BYTES tensor rather than a tensor of numbers."""

    input_name: str
    as_bytes: bool = False

    def request(self, image: Array, tasks: Sequence[str]) -> bytes:
        """Return the request for `tasks`."""
        message = _pb.ModelInferRequest(model_name="all_tasks")
        blob = image.tobytes()
        if self.as_bytes:
            message.inputs.add(name=self.input_name, datatype="BYTES", shape=[1])
            message.raw_input_contents.append(len(blob).to_bytes(4, "little") + blob)
        else:
            message.inputs.add(name=self.input_name, datatype="UINT8", shape=image.shape)
            message.raw_input_contents.append(blob)
        for task in tasks:
            message.outputs.add(name=task)
        return bytes(message.SerializeToString())

    def connect(self, port: int) -> AbstractAsyncContextManager[_Ask]:
        """Open a channel of its own."""
        return _grpc_connection(port)

    def read(self, answer: bytes) -> dict[str, Array]:
        """Return the scores by task."""
        message = _pb.ModelInferResponse.FromString(answer)
        blobs = zip(message.outputs, message.raw_output_contents, strict=True)
        return {output.name: np.frombuffer(blob, np.float32).reshape(output.shape) for output, blob in blobs}


@contextlib.asynccontextmanager
async def _http_connection(port: int) -> AsyncIterator[_Ask]:
    connection = await HttpConnection.open(("127.0.0.1", port))

    async def ask(request: bytes) -> bytes:
        reply = await connection.ask(request)
        if reply.status != 200:
            raise RuntimeError(f"it answered {reply.status}: {reply.body.decode('utf-8', 'replace')[:300]}")
        return reply.body

    try:
        yield ask
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _grpc_connection(port: int) -> AsyncIterator[_Ask]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", _MAX_BYTES)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # bytes in, bytes out

        async def ask(request: bytes) -> bytes:
            try:
                answer: bytes = await method(request)
            except grpc.aio.AioRpcError as error:
                raise RuntimeError(f"it answered {error.code().name}: {error.details()}") from error
            return answer

        yield ask
