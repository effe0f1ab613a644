"""Clients over both protocols that tell everything about an answer, and some that ask without a pause."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2_grpc

from tests.serving.exact_nets import answer
from tests.serving.nets import images
from tests.serving.protocol.held_requests import grpc_request, wait_for


class Addressed(Protocol):
    """A server, of this process or another."""

    @property
    def http_address(self) -> str: ...

    @property
    def grpc_address(self) -> str: ...


@dataclass(frozen=True)
class Reply:
    """What came back. status: of HTTP a number, of gRPC a name. errors: of a partial result, by task."""

    status: int | str
    sentence: str = ""
    retry_after: str | None = None
    version: str = ""
    values: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        return self.status in (200, "OK")

    def check(self, **seeds: int) -> None:
        """Fail unless this is the answer of just these tasks, each with its seed, bit for bit, to rows as `Client` sends them."""
        assert self.is_ok, self
        assert self.values.keys() == seeds.keys()
        for task, seed in seeds.items():
            found = self.values[task]
            np.testing.assert_array_equal(found, answer(seed, images(len(found))))


class HttpClient:
    """Asks over one connection."""

    def __init__(self, server: Addressed) -> None:
        self._connection = http.client.HTTPConnection(server.http_address, timeout=20)

    def __call__(self, model: str, rows: int = 1, **parameters: Any) -> Reply:
        self.send(model, rows, **parameters)
        response = self._connection.getresponse()
        body = json.loads(response.read())
        values = {
            output["name"]: np.array(output["data"], np.float32).reshape(output["shape"]) for output in body.get("outputs", ())
        }
        return Reply(
            response.status,
            body.get("error", ""),
            response.headers["retry-after"],
            body.get("model_version", ""),
            values,
            _errors(body.get("parameters", {})),
        )

    def send(self, model: str, rows: int = 1, **parameters: Any) -> None:
        """Ask, and wait for nothing."""
        tensor = {"name": "image", "datatype": "UINT8", "shape": [rows, 8, 8, 3], "data": images(rows).ravel().tolist()}
        body = json.dumps({"inputs": [tensor], "parameters": parameters})
        self._connection.request("POST", f"/v2/models/{model}/infer", body)

    def close(self) -> None:
        self._connection.close()


class GrpcClient:
    """Asks over one connection."""

    def __init__(self, server: Addressed) -> None:
        self._channel = grpc.insecure_channel(server.grpc_address)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def __call__(self, model: str, rows: int = 1, *, within_s: float = 20, **parameters: Any) -> Reply:
        try:
            message = self._stub.ModelInfer(grpc_request(model, rows, **parameters), timeout=within_s)
        except grpc.RpcError as error:
            found: Any = error
            return Reply(found.code().name, found.details(), dict(found.trailing_metadata() or ()).get("retry-after"))
        values = {
            output.name: np.frombuffer(raw, np.float32).reshape(output.shape)
            for output, raw in zip(message.outputs, message.raw_output_contents, strict=True)
        }
        parameters = {name: value.string_param for name, value in message.parameters.items()}
        return Reply("OK", version=message.model_version, values=values, errors=_errors(parameters))

    def close(self) -> None:
        self._channel.close()


def _errors(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {name.removeprefix("error."): text for name, text in parameters.items() if name.startswith("error.")}


Client = HttpClient | GrpcClient


class Load:
    """Clients that ask one model each, without a pause. replies: of each, in order."""

    def __init__(self, asked: Sequence[tuple[Callable[[Any], Client], Addressed, str]]) -> None:
        self.models = [model for _, _, model in asked]
        self.replies: list[list[Reply]] = [[] for _ in asked]
        self._done = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._ask, args=(*one, seen)) for one, seen in zip(asked, self.replies, strict=True)
        ]

    def go_on(self, times: int = 5) -> None:
        """Return when each client has had so many more replies, or one has failed altogether."""
        before = [len(seen) for seen in self.replies]
        wait_for(
            lambda: (
                bool(self._errors) or all(len(seen) >= count + times for seen, count in zip(self.replies, before, strict=True))
            )
        )
        if self._errors:
            raise self._errors[0]

    def of(self, model: str) -> list[list[Reply]]:
        """Return the replies of the clients that ask `model`, for each client."""
        return [seen for name, seen in zip(self.models, self.replies, strict=True) if name == model]

    def all(self) -> list[Reply]:
        """Return the replies of all clients."""
        return [reply for seen in self.replies for reply in seen]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        if self._errors and kind is None:
            raise self._errors[0]

    def _ask(self, connect: Callable[[Any], Client], server: Addressed, model: str, seen: list[Reply]) -> None:
        with ExitStack() as stack:
            client = connect(server)
            stack.callback(client.close)
            try:
                while not self._done.is_set():
                    seen.append(client(model))
            except BaseException as error:
                self._errors.append(error)


def clients_of(server: Addressed, *models: str) -> list[tuple[Callable[[Any], Client], Addressed, str]]:
    """Return a client over each protocol for each model, for `Load`."""
    return [(connect, server, model) for model in models for connect in (HttpClient, GrpcClient)]
