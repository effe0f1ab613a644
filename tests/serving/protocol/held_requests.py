"""Requests over both protocols that wait behind one at a gate, and segments that fail."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.repository import Repository
from serving.engines.in_memory import InMemoryEngine
from serving.server import BackgroundServer
from tests.serving.nets import LAYERS, images, make_repository
from tests.serving.protocol.test_images import FORM


class Gated(InMemoryEngine):
    """The family of nets.py, one run at a time, whose trunk waits until the gate is open. Rows tell requests apart: none are batched."""

    def __init__(self, **options: Any) -> None:
        super().__init__({**LAYERS, "trunk": self._trunk}, max_batch_rows=1, **options)
        self.gate = threading.Event()
        self.at_the_gate = threading.Event()

    @property
    def waiting_rows(self) -> int:
        return sum(self.queued_rows().values())

    def rows_of(self, segment: str) -> list[int]:
        """Return the rows of each run of `segment`, in order."""
        return [run.rows for run in self.runs if run.segment == segment]

    def _trunk(self, rows: np.ndarray) -> np.ndarray:
        self.at_the_gate.set()
        self.gate.wait(20)
        return LAYERS["trunk"](rows)


@dataclass(frozen=True)
class Reply:
    """What came back. status: of HTTP a number, of gRPC a name. headers: of gRPC the trailing metadata."""

    status: int | str
    sentence: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


def ask_http(server: BackgroundServer, model: str = "late", rows: int = 1, **parameters: Any) -> Reply:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [rows, 8, 8, 3], "data": images(rows).ravel().tolist()}
    with closing(http.client.HTTPConnection(server.http_address, timeout=20)) as connection:
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor], "parameters": parameters}))
        response = connection.getresponse()
        answer = json.loads(response.read())
    headers = {name.lower(): value for name, value in response.getheaders()}
    outputs = tuple(output["name"] for output in answer.get("outputs", ()))
    return Reply(response.status, answer.get("error", ""), headers, answer.get("parameters", {}), outputs)


def grpc_request(model: str = "late", rows: int = 1, **parameters: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[images(rows).tobytes()])
    request.inputs.add(name="image", datatype="UINT8", shape=[rows, 8, 8, 3])
    fields: dict[type, str] = {bool: "bool_param", int: "int64_param", str: "string_param"}
    for name, value in parameters.items():
        setattr(request.parameters[name], fields[type(value)], value)
    return request


def ask_grpc(server: BackgroundServer, model: str = "late", rows: int = 1, **parameters: Any) -> Reply:
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            answer = stub.ModelInfer(grpc_request(model, rows, **parameters), timeout=20)
        except grpc.RpcError as error:
            found: Any = error
            return Reply(found.code().name, found.details(), dict(found.trailing_metadata()))
    named = {name: value.string_param for name, value in answer.parameters.items()}
    return Reply("OK", "", {}, named, tuple(output.name for output in answer.outputs))


Ask = Callable[..., Reply]


@contextmanager
def served(engine: InMemoryEngine, repository: Repository | None = None) -> Iterator[BackgroundServer]:
    with BackgroundServer(repository or make_repository(), engine, http_port=0, grpc_port=0) as server:
        yield server


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.002)


@dataclass
class Queue:
    """A server with one request at the gate (1 row of `probe`), so that all others wait."""

    server: BackgroundServer
    engine: Gated
    pool: ThreadPoolExecutor
    first: Future[Reply]

    def put(self, ask: Ask, rows: int, **parameters: Any) -> Future[Reply]:
        """Send a request and return when it waits in the engine."""
        before = self.engine.waiting_rows
        asked = self.pool.submit(ask, self.server, rows=rows, **parameters)
        wait_for(lambda: self.engine.waiting_rows == before + rows or asked.done())
        return asked

    def open(self) -> None:
        """Let everything run, to its end."""
        self.engine.gate.set()
        assert self.first.result(20).status in (200, "OK")
        wait_for(lambda: not self.engine.waiting_rows)


@contextmanager
def queue_before(engine: Gated) -> Iterator[Queue]:
    with served(engine) as server, ThreadPoolExecutor(8) as pool:
        try:
            first = pool.submit(ask_http, server, "probe")
            assert engine.at_the_gate.wait(20)
            yield Queue(server, engine, pool, first)
        finally:
            engine.gate.set()


class Failing(InMemoryEngine):
    """The family of nets.py without these segments."""

    def __init__(self, *segments: str) -> None:
        super().__init__({name: layer for name, layer in LAYERS.items() if name not in segments})


NO_HEAD = "There is no function for segment 'head-parity'."


def raw_request(path: str, body: bytes, head: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


FORM_HEAD = f"Content-Type: {FORM}\r\n"


def infer_body(rows: int) -> bytes:
    tensor = {"name": "image", "datatype": "UINT8", "shape": [rows, 8, 8, 3], "data": images(rows).ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()
