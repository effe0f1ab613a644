"""The same repository behind three servers (ours on either engine, and a real Triton), and one client for all of them.

To the family of nets.py it adds a task with two outputs, as the exporter writes one:
image -> trunk -> mid -> suffix -+-> head-left   (pair.left)
                                 +-> head-right  (pair.right)
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import numpy as np
import onnx
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from contract.dtypes import dtype_name
from contract.repository import Repository, Step, TensorSpec
from contract.repository.write import model_path, write_all_tasks, write_models
from serving.engines.triton.engine import TritonEngine, TritonEngineOptions
from serving.local_triton.local import LocalTriton
from serving.server import BackgroundServer
from tests.serving.nets import CHAINS, LAYERS, Layer, images, write_repository
from tests.serving.nets import whole as whole_task
from tests.serving.protocol.held_requests import wait_for

PAIR = "pair"
HEADS = {
    f"{PAIR}.left": Layer("head-left", (5, 2), 3, seed=10, is_head=True),
    f"{PAIR}.right": Layer("head-right", (5, 6), 3, seed=11, is_head=True),
}
TASKS = (*CHAINS, PAIR)
SEGMENTS = (*LAYERS, *(head.name for head in HEADS.values()))
OUTPUTS = {**{task: (task,) for task in CHAINS}, PAIR: tuple(HEADS)}


def whole(output: str, rows: NDArray[np.uint8]) -> NDArray[Any]:
    """Return what the network that ends in `output` answers."""
    if output not in HEADS:
        return whole_task(output, rows)
    values: NDArray[Any] = rows
    for name in CHAINS["probe"][:-1]:
        values = LAYERS[name](values)
    return HEADS[output](values)


def write_three(path: Path) -> Repository:
    tasks = dict(write_repository(path).tasks)
    steps = tasks["probe"].steps
    heads = [Step(head.name, steps[-1].inputs, (output,)) for output, head in HEADS.items()]
    outputs = tuple(TensorSpec(output, "FP32", head.sizes[1:]) for output, head in HEADS.items())
    tasks[PAIR] = replace(tasks["probe"], name=PAIR, steps=(*steps[:-1], *heads), outputs=outputs, labels=())
    for head in HEADS.values():
        onnx.save(head.model(), model_path(path, head.name))
    write_models(path, {head.name: head.segment() for head in HEADS.values()}, {PAIR: tasks[PAIR]})
    return write_all_tasks(path, tasks.values())


@dataclass(frozen=True)
class Face:
    """One of the servers, as clients see it."""

    is_triton: bool
    http: str
    grpc: str


def bare(triton: LocalTriton) -> Face:
    return Face(True, triton.addresses.http, triton.addresses.grpc)


@contextmanager
def ours(path: Path, triton: LocalTriton | None) -> Iterator[Face]:
    """Yield our server: with Triton as its engine, or with its own."""
    options: dict[str, Any] = {"threads": 1}
    if triton is not None:
        url, seldom = triton.grpc_url, TritonEngineOptions(statistics_s=3600)  # but for those that a client asks for
        options = {"make_engine": lambda repository: TritonEngine(repository, url, seldom)}
    with BackgroundServer(path, http_port=0, grpc_port=0, shared_memory=True, **options) as server:
        yield Face(False, server.http_address, server.grpc_address)


class Client:
    """tritonclient over one of the two protocols; what it is told of models is the same dictionaries over both."""

    def __init__(self, face: Face, protocol: str) -> None:
        self.face, self.is_http = face, protocol == "http"
        self.module: ModuleType = tritonclient.http if self.is_http else tritonclient.grpc
        self.client = self.module.InferenceServerClient(face.http if self.is_http else face.grpc)

    def infer(
        self,
        model: str,
        rows: NDArray[Any],
        outputs: Sequence[str] = (),
        *,
        name: str = "image",
        classes: int = 0,
        binary: bool = True,
        **options: Any,
    ) -> Any:
        form = {"binary_data": binary} if self.is_http else {}
        tensor = self.module.InferInput(name, list(rows.shape), dtype_name(rows))
        tensor.set_data_from_numpy(rows, **form)
        wanted = [self.module.InferRequestedOutput(output, class_count=classes, **form) for output in outputs]
        return self.client.infer(model, [tensor], outputs=wanted or None, **options)

    def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return what one of the client's methods answers, without the envelope that a gRPC message is around it."""
        if self.is_http:
            return getattr(self.client, method)(*arguments, **options)
        answer = getattr(self.client, method)(*arguments, as_json=True, **options)
        envelope = {"get_model_config": "config", "get_model_repository_index": "models"}.get(method)
        return answer[envelope] if envelope else answer

    def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
        """Send what no client of Triton's would, over HTTP; return the answer's body. Raises as tritonclient does."""
        connection = http.client.HTTPConnection(self.face.http, timeout=20)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise InferenceServerException(response.read().decode(), str(response.status))
            return response.read()
        finally:
            connection.close()

    def message(self, message: Any) -> Any:
        """Send a ModelInferRequest as it is."""
        return self.client._client_stub.ModelInfer(message, timeout=20)

    def outcome(self, ask: Callable[[Client], object]) -> str:
        """Return "OK", or the status of HTTP or gRPC with which it was refused."""
        try:
            ask(self)
        except InferenceServerException as error:
            return str(error.status()).removeprefix("StatusCode.")
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def counts(self, *models: str) -> dict[str, tuple[int, int, int]]:
        """Return, of `models`, how many requests or runs succeeded, how many there were, and how many rows, since the start."""
        entries = self.ask("get_inference_statistics")["model_stats"]
        return {
            entry["name"]: (
                int(entry["inference_stats"].get("success", {}).get("count", 0)),
                int(entry.get("execution_count", 0)),
                int(entry.get("inference_count", 0)),
            )
            for entry in entries
            if entry["name"] in models
        }


def described(result: Any) -> dict[str, Any]:
    """Return the head of an answer: model_name, model_version, id, and of each output name, datatype and shape, in order."""
    found = result.get_response() if isinstance(result, tritonclient.http.InferResult) else result.get_response(as_json=True)
    outputs = [(output["name"], output["datatype"], tuple(int(size) for size in output["shape"])) for output in found["outputs"]]
    return {"outputs": outputs, **{key: found.get(key, "") for key in ("model_name", "model_version", "id")}}


def check(result: Any, rows: int, outputs: Sequence[str]) -> None:
    assert {(name, dtype) for name, dtype, _ in described(result)["outputs"]} == {(name, "FP32") for name in outputs}
    for name in outputs:
        np.testing.assert_allclose(result.as_numpy(name), whole(name, images(rows)), rtol=1e-4, atol=1e-5)


def spec_of(tensor: Any) -> tuple[str, str, list[int]]:
    return tensor["name"], tensor["datatype"], [int(size) for size in tensor["shape"]]


def outputs_of(result: Any) -> list[dict[str, Any]]:
    found = result.get_response() if isinstance(result, tritonclient.http.InferResult) else result.get_response(as_json=True)
    return list(found["outputs"])


def settled(client: Client, models: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Triton counts after it has answered: wait for what was asked before."""
    seen = [client.counts(*models)]

    def is_still() -> bool:
        time.sleep(0.1)
        seen.append(client.counts(*models))
        return len(seen) > 3 and seen[-1] == seen[-4]

    wait_for(is_still)
    return seen[-1]
