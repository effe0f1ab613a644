"""The requests of a soak: good ones, and bad ones of every kind, each with the answers that are right."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from tritonclient.grpc import service_pb2

from benchmarks.harness.http_wire import binary_body, infer_bytes, request_bytes
from contract.dtypes import NUMPY_DTYPES
from contract.repository import ALL_TASKS, Repository, TensorSpec

_pb: Any = service_pb2
Make = Callable[[int], bytes]  # of the request's number, so that no two need be alike


@dataclass(frozen=True)
class HttpCase:
    """A request over HTTP as bytes. statuses: that are right; none: the client hangs up without waiting for an answer.

    share: of all requests, in proportion. same: whether its answers in binary are all the same numbers.
    """

    name: str
    make: Make
    statuses: frozenset[int | str]
    share: float = 1
    same: bool = False


@dataclass(frozen=True)
class GrpcCase:
    """A gRPC call with a message as bytes. statuses: that are right, by name. cancelled: the client gives up at once.

    share, same: as of `HttpCase`.
    """

    name: str
    method: str
    make: Make
    statuses: frozenset[str]
    share: float = 1
    cancelled: bool = False
    same: bool = False


Case = HttpCase | GrpcCase


def good_and_bad_cases(repository: Repository) -> Sequence[Case]:
    """Return the cases for a repository whose tasks take one input; about half of the requests are good."""
    task = next(iter(repository.tasks.values()))
    (spec,) = task.inputs
    rows = np.random.default_rng(0).integers(0, 256, (1, *spec.shape)).astype(NUMPY_DTYPES[spec.dtype])
    return [*_good_http(task.name, spec, rows), *_bad_http(task.name, spec, rows), *_grpc(task.name, spec, rows)]


def _good_http(task: str, spec: TensorSpec, rows: Any) -> list[Case]:
    infer = f"/v2/models/{task}/infer"
    numbers = json.dumps({"id": "1", "inputs": [{**_described(spec, rows), "data": rows.ravel().tolist()}]}).encode()
    everything = binary_body(spec, rows)
    return [
        HttpCase("numbers", _post(infer, numbers), _only(200), 4),
        HttpCase("binary", _infer(task, everything), _only(200), 8, same=True),
        HttpCase("all tasks", _infer(ALL_TASKS, everything), _only(200), 8, same=True),
        HttpCase("compressed", _post(infer, gzip.compress(numbers), "Content-Encoding: gzip"), _only(200)),
        HttpCase("image", _post("/predict?top_k=2", _picture()), frozenset((200, 400)), 2),  # 400: no images here
        HttpCase("metadata", _get(f"/v2/models/{task}"), _only(200)),
        HttpCase("index", _post("/v2/repository/index", b""), _only(200)),
        HttpCase("statistics", _get("/v2/models/stats"), _only(200)),
        HttpCase("metrics", _get("/metrics"), _only(200)),
    ]


def _bad_http(task: str, spec: TensorSpec, rows: Any) -> list[Case]:
    infer = f"/v2/models/{task}/infer"
    head, blob = binary_body(spec, rows)
    wrong_shape = json.dumps({"inputs": [{**_described(spec, rows), "shape": [1, 2], "data": [1, 2]}]}).encode()
    in_a_hurry = head.replace(b'"parameters": {"binary_data_output"', b'"parameters": {"timeout": 1, "binary_data_output"')
    whole = infer_bytes(task, head, blob)
    picture = _picture()
    bomb = gzip.compress(bytes(80_000_000), 9)
    return [
        HttpCase("no JSON", _post(infer, b'{"inputs": [' * 20), _only(400), 2),
        HttpCase("wrong shape", _post(infer, wrong_shape), _only(400), 2),
        HttpCase("too few bytes", _infer(task, (head, blob[:-3])), _only(400), 2),
        HttpCase("wrong header length", _post(infer, head, "Inference-Header-Content-Length: 99999999"), _only(400)),
        HttpCase("unknown model", lambda number: infer_bytes(f"model-{number}", head, blob), _only(404), 2),
        HttpCase("unknown path", lambda number: request_bytes("GET", f"/path-{number}?x={number}"), _only(404), 2),
        HttpCase(
            "own request id", lambda number: request_bytes("GET", f"/v2/models/{task}", f"X-Request-Id: id-{number}"), _only(200)
        ),
        HttpCase("wrong method", _get(infer), _only(405)),
        HttpCase("no image", _post("/predict", b"no image" * 9), _only(400)),
        HttpCase("half an image", _post("/predict", picture[:60]), _only(400)),
        HttpCase("unknown task", lambda number: request_bytes("POST", f"/predict?tasks=t{number}", body=picture), _only(400)),
        HttpCase("no time", _infer(task, (in_a_hurry, blob)), frozenset((200, 504)), 2),
        HttpCase("model control", _post(f"/v2/repository/models/{task}/unload", b"{}"), frozenset((401, 501))),
        HttpCase("hangs up early", lambda number: whole[: 50 + number % 200], frozenset(), 2),
        HttpCase("hangs up late", _infer(task, (head, blob)), frozenset(), 2),
        HttpCase("bomb", lambda number: _bomb(infer, bomb, number), frozenset((404, 413))),
    ]


def _grpc(task: str, spec: TensorSpec, rows: Any) -> list[Case]:
    def message(model: str, tensor: Any = rows, timeout: int = 0) -> bytes:
        request = _pb.ModelInferRequest(model_name=model, raw_input_contents=[rows.tobytes()])
        request.inputs.add(name=spec.name, datatype=spec.dtype, shape=tensor.shape)
        if timeout:
            request.parameters["timeout"].int64_param = timeout
        return bytes(request.SerializeToString())

    good, everything, wrong = message(task), message(ALL_TASKS), message(task, np.zeros((3, 3)))
    hurried = message(task, timeout=1)
    invalid = frozenset(("INVALID_ARGUMENT",))
    return [
        GrpcCase("gRPC", "ModelInfer", lambda number: good, frozenset(("OK",)), 12, same=True),
        GrpcCase("gRPC all tasks", "ModelInfer", lambda number: everything, frozenset(("OK",)), 6, same=True),
        GrpcCase("gRPC statistics", "ModelStatistics", lambda number: b"", frozenset(("OK",))),
        GrpcCase("gRPC wrong shape", "ModelInfer", lambda number: wrong, invalid, 3),
        GrpcCase("gRPC no message", "ModelInfer", lambda number: b"\x0a\xff" + good[2:], invalid, 3),
        GrpcCase("gRPC unknown model", "ModelInfer", lambda number: message(f"model-{number}"), frozenset(("NOT_FOUND",)), 3),
        GrpcCase("gRPC unknown method", "Nothing", lambda number: good, frozenset(("UNIMPLEMENTED",))),
        GrpcCase("gRPC no time", "ModelInfer", lambda number: hurried, frozenset(("OK", "DEADLINE_EXCEEDED")), 2),
        GrpcCase("gRPC cancelled", "ModelInfer", lambda number: good, frozenset(("OK", "CANCELLED")), 3, cancelled=True),
    ]


def _only(status: int) -> frozenset[int | str]:
    return frozenset((status,))


def _described(spec: TensorSpec, rows: Any) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.dtype, "shape": list(rows.shape)}


def _picture() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def _get(path: str, *headers: str) -> Make:
    request = request_bytes("GET", path, *headers)
    return lambda number: request


def _post(path: str, body: bytes, *headers: str) -> Make:
    request = request_bytes("POST", path, *headers, body=body)
    return lambda number: request


def _infer(model: str, parts: tuple[bytes, bytes]) -> Make:
    request = infer_bytes(model, *parts)
    return lambda number: request


def _bomb(path: str, bomb: bytes, number: int) -> bytes:
    """Return 80 MB in 80 kB, one time in fifty: unpacking takes a tenth of a second. Otherwise a request for nothing."""
    return (_get("/nothing") if number % 50 else _post(path, bomb, "Content-Encoding: gzip"))(number)
