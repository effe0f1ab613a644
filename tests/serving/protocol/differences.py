"""What a client may do wrong, or differently, and what it is answered: where our servers and Triton agree, and where not, and why.

docs/reference/wire.md has the differences in the same words.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2

from contract.repository import ALL_TASKS
from tests.serving.nets import MAX_ROWS, images
from tests.serving.protocol.three_servers import Client

_pb: Any = service_pb2
ROW = images(1)
INFER = "/v2/models/probe/infer"
Ask = Callable[[Client], object]


@dataclass(frozen=True)
class Codes:
    """How something ends over either protocol; None: it cannot be asked over that one."""

    http: str | None
    grpc: str | None

    def of(self, client: Client) -> str | None:
        return self.http if client.is_http else self.grpc

    def __str__(self) -> str:
        return " / ".join("answered" if code == "OK" else code for code in dict.fromkeys((self.http, self.grpc)) if code)


@dataclass(frozen=True)
class Difference:
    """ask: does it. why: our reason for not doing as Triton does."""

    ask: Ask
    ours: Codes
    triton: Codes
    why: str

    def row(self, what: str) -> str:
        """Return its line in the documentation's table."""
        return f"| {what} | {self.ours} | {self.triton} | {self.why} |"


OK = Codes("OK", "OK")
WRONG = Codes("400", "INVALID_ARGUMENT")
UNKNOWN = Codes("404", "NOT_FOUND")

REFUSALS: dict[str, tuple[Ask, Codes]] = {
    "status of an unknown CUDA shared memory region": (lambda client: client.ask("get_cuda_shared_memory_status", "x"), UNKNOWN),
    "unknown model": (lambda client: client.infer("cats", ROW), UNKNOWN),
    "unknown version": (lambda client: client.infer("probe", ROW, model_version="9"), UNKNOWN),
    "unknown output": (lambda client: client.infer("probe", ROW, ["late"]), WRONG),
    "unknown output beside a known one": (lambda client: client.infer(ALL_TASKS, ROW, ["late", "cats"]), WRONG),
    "unknown input": (lambda client: client.infer("probe", ROW, name="x"), WRONG),
    "no input": (lambda client: client.client.infer("probe", []), WRONG),
    "input twice": (lambda client: client.client.infer("probe", [_tensor(client)] * 2), WRONG),
    "wrong dtype": (lambda client: client.infer("probe", ROW.astype(np.float32)), WRONG),
    "wrong shape": (lambda client: client.infer("probe", ROW[:, :4]), WRONG),
    "no axis for the rows": (lambda client: client.infer("probe", ROW[0]), WRONG),
    "no rows": (lambda client: client.infer("probe", images(0)), WRONG),
    "fewer bytes than the shape says": (lambda client: _send_bytes(client, b"\x01" * 100), WRONG),
    "negative number of classes": (lambda client: client.infer("probe", ROW, ["probe"], classes=-1), Codes(None, WRONG.grpc)),
    "metadata of an unknown model": (lambda client: client.ask("get_model_metadata", "cats"), UNKNOWN),
    "metadata of an unknown version": (lambda client: client.ask("get_model_metadata", "probe", "9"), UNKNOWN),
    "configuration of an unknown model": (lambda client: client.ask("get_model_config", "cats"), UNKNOWN),
    "unknown path": (lambda client: client.send("GET", "/v2/nothing"), Codes("404", None)),
    "inference by GET": (lambda client: client.send("GET", INFER), Codes("405", None)),
}

DIFFERENCES: dict[str, Difference] = {
    "more rows than `max_batch_size`": Difference(
        lambda client: client.infer("probe", images(MAX_ROWS + 1)), OK, WRONG,
        "answered, in parts: clients need not know the limit; refused as on Triton where "
        "[rows affect each other](serving.md#rows-that-affect-each-other)",
    ),
    "a version that is no number": Difference(
        lambda client: client.infer("probe", ROW, model_version="new"), UNKNOWN, Codes("404", "INVALID_ARGUMENT"),
        "an unknown version like others",
    ),
    "values that their type does not hold, sent as numbers": Difference(
        lambda client: _send_numbers(client, [256] * ROW.size), WRONG, OK,
        "refused; Triton cuts 256 down to 0",
    ),
    "fewer values than the shape says, in JSON": Difference(
        lambda client: _send_numbers(client, [1]), WRONG, Codes("500", "INVALID_ARGUMENT"),
        "the client's mistake, not the server's",
    ),
    "a body that is no request": Difference(
        lambda client: client.send("POST", INFER, b"{}{"), Codes("400", None), Codes("500", None),
        "the client's mistake, not the server's",
    ),
    "a compression that nobody knows": Difference(
        lambda client: client.send("POST", INFER, b"{}", {"Content-Encoding": "br"}), Codes("400", None), Codes("501", None),
        "the client's mistake: the header is wrong",
    ),
    "an output asked for twice": Difference(
        lambda client: client.infer(ALL_TASKS, ROW, ["late", "late"]), WRONG, OK,
        "refused: an answer has one tensor of a name; Triton answers once",
    ),
    "0 classes": Difference(
        lambda client: client.message(_message(classes=0)), Codes(None, "OK"), Codes(None, "INVALID_ARGUMENT"),
        "the values, as both servers answer over HTTP",
    ),
    "more `raw_input_contents` than inputs": Difference(
        lambda client: client.message(_message(raw=2)), Codes(None, "INVALID_ARGUMENT"), Codes(None, "OK"),
        "refused: nobody knows which was meant; Triton takes the first",
    ),
    "a raw binary request (`Inference-Header-Content-Length: 0`)": Difference(
        lambda client: client.send("POST", INFER, ROW.tobytes(), {"Inference-Header-Content-Length": "0"}),
        Codes("400", None), Codes("OK", None),
        "not offered; `/predict` takes images as they are",
    ),
    "a `timeout` that passes": Difference(
        lambda client: client.infer("probe", ROW, timeout=1), Codes("504", "DEADLINE_EXCEEDED"), OK,
        "heeded for every model; Triton heeds it where the model's queue policy says so",
    ),
    "readiness of an unknown model or version, over HTTP": Difference(
        lambda client: client.send("GET", "/v2/models/cats/ready"), Codes("404", None), Codes("400", None),
        "unknown as everywhere else; tritonclient says False for both",
    ),
    "statistics of an unknown model or version": Difference(
        lambda client: client.ask("get_inference_statistics", "cats"), UNKNOWN, WRONG,
        "unknown as everywhere else",
    ),
    "trace settings of an unknown model": Difference(
        lambda client: client.ask("get_trace_settings", "cats"), UNKNOWN, WRONG,
        "unknown as everywhere else",
    ),
    "gRPC health of an unknown model": Difference(
        lambda client: _check_health(client, "cats"), Codes(None, "NOT_FOUND"), Codes(None, "OK"),
        "as the health protocol has it; Triton answers for the server, whatever is asked for",
    ),
    "loading and unloading where it is off": Difference(
        lambda client: client.client.load_model("probe"), Codes("501", "UNIMPLEMENTED"), Codes("503", "UNAVAILABLE"),
        "trying again will not help",
    ),
    "registering shared memory that is not there": Difference(
        lambda client: client.client.register_system_shared_memory("none", "/espalier-there-is-none", 8), WRONG,
        Codes("500", "INTERNAL"), "the client's mistake, not the server's",
    ),
    "registering shared memory in which Triton talks to its Python models": Difference(
        lambda client: _register_reserved(client), WRONG, OK,
        "refused, as by newer Tritons: others' tensors are in it",
    ),
    "registering CUDA shared memory": Difference(
        lambda client: client.client.register_cuda_shared_memory("none", base64.b64encode(bytes(64)), 0, 8),
        Codes("501", "UNIMPLEMENTED"), WRONG,
        "not offered, with whatever handle; Triton was asked without a GPU",
    ),
}  # fmt: skip


def _tensor(client: Client) -> Any:
    tensor = client.module.InferInput("image", list(ROW.shape), "UINT8")
    tensor.set_data_from_numpy(ROW)
    return tensor


def _message(raw: int = 1, data: bytes = ROW.tobytes(), classes: int | None = None, **contents: Any) -> Any:
    request = _pb.ModelInferRequest(model_name="probe")
    request.inputs.add(name="image", datatype="UINT8", shape=ROW.shape, **contents)
    request.raw_input_contents.extend([data] * raw)
    if classes is not None:
        request.outputs.add(name="probe").parameters["classification"].int64_param = classes
    return request


def _send_bytes(client: Client, data: bytes) -> object:
    if not client.is_http:
        return client.message(_message(data=data))
    size = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [{"name": "image", "datatype": "UINT8", "shape": ROW.shape, "parameters": size}]}).encode()
    return client.send("POST", INFER, head + data, {"Inference-Header-Content-Length": str(len(head))})


def _send_numbers(client: Client, numbers: list[int]) -> object:
    if not client.is_http:
        return client.message(_message(raw=0, contents={"uint_contents": numbers}))
    body = {"inputs": [{"name": "image", "datatype": "UINT8", "shape": ROW.shape, "data": numbers}]}
    return client.send("POST", INFER, json.dumps(body).encode())


def _register_reserved(client: Client) -> object:
    key = f"triton_python_backend_shm_region_{uuid.uuid4().hex}"
    file = Path("/dev/shm") / key
    file.write_bytes(bytes(8))
    try:
        return client.client.register_system_shared_memory(key, key, 8)
    finally:
        client.client.unregister_system_shared_memory(key)
        file.unlink()


def _check_health(client: Client, service: str) -> object:
    with grpc.insecure_channel(client.face.grpc) as channel:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
