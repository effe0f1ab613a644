"""A stand-in for Triton where there is none: its model control, ensembles, errors and statistics, behind a real gRPC server.

`python -m tests.serving.stand_in REPO PORT` is one as a process. What it is to do as Triton was looked up in Triton's documentation and
tried on Triton 24.10: loading an ensemble loads what it is made of; one whose parts are gone is unavailable as a whole; steps that nobody
asked for do not run; a load that fails leaves what was there.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
from google.protobuf import json_format
from tritonclient.grpc import service_pb2, service_pb2_grpc

from contract.dtypes import NUMPY_DTYPES, dtype_name
from contract.repository.config import ModelConfig, parse_text
from serving.engines.onnxruntime.session import session_options

_pb: Any = service_pb2
Arrays = dict[str, np.ndarray]


class Refusal(Exception):
    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = grpc.StatusCode[code]


class Model:
    def __init__(self, config: Any, onnx: bytes | None) -> None:
        self.config = config
        options = session_options(1)
        self.session = None if onnx is None else ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.runs: Counter[int] = Counter()  # rows -> runs


class StandIn(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """control: "explicit" loads nothing at the start, "none" everything. Requests for models in `held` wait for the event there."""

    def __init__(self, repository: Path, control: str = "explicit", port: int = 0) -> None:
        self.repository = repository
        self.control = control
        self.port = port
        self.models: dict[str, Model] = {}
        self.loads: list[str] = []  # "name", and "-name" for unloads
        self.requests: list[tuple[str, tuple[str, ...], int]] = []  # model, outputs, rows
        self.parameters: list[dict[str, int]] = []
        self.held: dict[str, threading.Event] = {}
        self.refusals: dict[str, Refusal] = {}
        self.cancelled = threading.Event()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def start(self) -> StandIn:
        self.models = {}
        if self.control == "none":
            for folder in sorted(self.repository.iterdir()):
                self._load(folder.name, {})
        self.loads = []
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(ThreadPoolExecutor(16), options=options)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()
        return self

    def stop(self) -> None:
        self._server.stop(0).wait()

    def __enter__(self) -> StandIn:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()
        for event in self.held.values():
            event.set()

    def runs(self) -> dict[str, int]:
        return {name: sum(model.runs.values()) for name, model in self.models.items() if model.runs and model.session}

    def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _pb.ServerLiveResponse(live=True)

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _pb.ModelReadyResponse(ready=request.name in self.models and self._is_ready(request.name))

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return _pb.ModelConfigResponse(config=self._find(request.name, context).config)

    def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802
        response = _pb.ModelStatisticsResponse()
        for name, model in self.models.items():
            message = response.model_stats.add(name=name, last_inference=7 if model.runs else 0)
            message.execution_count = sum(model.runs.values())
            stats = message.inference_stats
            for duration in (stats.success, stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output):
                duration.count, duration.ns = message.execution_count, 3_000 * message.execution_count
            for rows, runs in model.runs.items():
                message.batch_stats.add(batch_size=rows, compute_infer={"count": runs, "ns": 2_000_000 * runs})
        return response

    def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._lock:
            self._check_control(context)
            parameters = {
                key: value.bytes_param if key.startswith("file:") else value.string_param
                for key, value in request.parameters.items()
            }
            try:
                self._load(request.model_name, parameters)
            except Exception as error:
                text = f"load failed for model '{request.model_name}': {error} in {self.repository}"
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
            self.loads.append(request.model_name)
            steps = self.models[request.model_name].config.ensemble_scheduling.step
            if not all((self.repository / step.model_name).is_dir() for step in steps):
                text = f"failed to load '{request.model_name}', failed to poll from model repository"
                context.abort(grpc.StatusCode.INTERNAL, text)
        return _pb.RepositoryModelLoadResponse()

    def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802
        with self._lock:
            self._check_control(context)
            self.models.pop(request.model_name, None)
            self.loads.append(f"-{request.model_name}")
        return _pb.RepositoryModelUnloadResponse()

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        name, outputs = request.model_name, tuple(output.name for output in request.outputs)
        context.add_callback(lambda: None if context.code() else self.cancelled.set())
        model = self._find(name, context)
        tensors = self.tensors(request, context)
        rows = len(next(iter(tensors.values())))
        self.requests.append((name, outputs, rows))
        self.parameters.append(
            {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in request.parameters.items()}
        )
        if rows > model.config.max_batch_size:
            text = f"inference request batch-size must be <= {model.config.max_batch_size} for '{name}'"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        try:
            found = self._run(name, tensors, outputs or tuple(output.name for output in model.config.output))
        except Refusal as refusal:
            context.abort(refusal.code, f"{refusal} {self.repository}")
        response = _pb.ModelInferResponse(model_name=name)
        for output, array in found.items():
            response.outputs.add(name=output, datatype=dtype_name(array), shape=array.shape)
            response.raw_output_contents.append(array.tobytes())
        return response

    def tensors(self, request: Any, context: Any) -> Arrays:
        return {
            tensor.name: np.frombuffer(raw, NUMPY_DTYPES[tensor.datatype]).reshape(tensor.shape)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }

    def _check_control(self, context: Any) -> None:
        if self.control != "explicit":
            text = "explicit model load / unload is not allowed if polling is enabled"
            context.abort(grpc.StatusCode.UNAVAILABLE, text)

    def _load(self, name: str, parameters: Mapping[str, Any]) -> None:
        if "config" in parameters:
            config = json_format.Parse(parameters["config"], ModelConfig())
        else:
            config = parse_text((self.repository / name / "config.pbtxt").read_text(), name)
        files = {key.removeprefix("file:"): value for key, value in parameters.items() if key.startswith("file:")}
        if config.HasField("ensemble_scheduling"):
            if not files and not (self.repository / name).is_dir():
                raise FileNotFoundError(name)
            for step in config.ensemble_scheduling.step:
                if step.model_name not in self.models:
                    self._load(step.model_name, {})
            self.models[name] = Model(config, None)
            return
        self.models[name] = Model(config, files.get("1/model.onnx") or (self.repository / name / "1/model.onnx").read_bytes())

    def _is_ready(self, name: str) -> bool:
        steps = self.models[name].config.ensemble_scheduling.step
        return all(step.model_name in self.models for step in steps)

    def _find(self, name: str, context: Any) -> Model:
        if name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' is not found")
        if not self._is_ready(name):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: '{name}' has no available versions")
        return self.models[name]

    def _run(self, name: str, tensors: Arrays, outputs: Iterable[str]) -> Arrays:
        if name in self.held:
            self.held[name].wait(20)
        if name in self.refusals:
            raise self.refusals[name]
        model = self.models[name]
        if model.session is not None:
            with self._lock:
                model.runs[len(next(iter(tensors.values())))] += 1
            return dict(zip(outputs, model.session.run(list(outputs), tensors), strict=True))
        known = dict(tensors)
        for step in _needed(model.config.ensemble_scheduling.step, outputs):
            given = {inner: known[outer] for inner, outer in step.input_map.items()}
            found = self._run(step.model_name, given, list(step.output_map))
            known.update({step.output_map[inner]: array for inner, array in found.items()})
        return {output: known[output] for output in outputs}


def _needed(steps: Any, outputs: Iterable[str]) -> list[Any]:
    wanted, needed = set(outputs), []
    for step in reversed(steps):
        if wanted.intersection(step.output_map.values()):
            needed.append(step)
            wanted.update(step.input_map.values())
    return needed[::-1]


if __name__ == "__main__":
    with StandIn(Path(sys.argv[1]), "none", int(sys.argv[2])) as triton:
        print(triton.port, flush=True)
        threading.Event().wait()
