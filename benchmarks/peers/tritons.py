"""Triton as a rival: by hand, on our repository as it is, and behind our server; with as many threads a model as all others, and with 1."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import onnx
from onnx import TensorProto

from benchmarks.harness.served import ServerProcess, served
from benchmarks.peers.processes import Processes
from benchmarks.peers.server import SEPARATE, SHARED, Endpoint, Rival, RivalServer, count_lines
from benchmarks.peers.wires import V2Grpc, V2Http
from benchmarks.peers.work import Work
from serving.local_triton.command import TritonOptions
from serving.local_triton.local import LocalTriton, local_triton

_VERSION = "24.10, ONNX Runtime through its Python backend"
_ONE = f"{SHARED}, 1 thread a model"
_TYPES = {TensorProto.UINT8: "TYPE_UINT8", TensorProto.FLOAT: "TYPE_FP32"}
_ROWS = 64


def triton_rivals() -> list[Rival]:
    """Return every way to have Triton compute."""
    front = f"{version('espalier')}, Triton {_VERSION}"
    return [
        Rival("espalier + Triton", SHARED, front, partial(_front, None)),
        Rival("espalier + Triton", _ONE, front, partial(_front, 1)),
        Rival("Triton, espalier's repository", SHARED, _VERSION, partial(_bare, None)),
        Rival("Triton, espalier's repository", _ONE, _VERSION, partial(_bare, 1)),
        Rival("Triton by hand", SEPARATE, _VERSION, partial(_by_hand, "separate", None)),
        Rival("Triton by hand", SHARED, _VERSION, partial(_by_hand, "shared", None)),
        Rival("Triton by hand", _ONE, _VERSION, partial(_by_hand, "shared", 1)),
    ]


def espalier_endpoints(process: ServerProcess, work: Work) -> list[Endpoint]:
    """Return both ways to ask `process`, our server."""
    name = work.image_name
    http, grpc = (int(address.rpartition(":")[2]) for address in (process.http_address, process.grpc_address))
    return [Endpoint("HTTP", V2Http(name), http), Endpoint("gRPC", V2Grpc(name), grpc)]


@contextlib.contextmanager
def _front(own_threads: int | None, work: Work, threads: int) -> Iterator[RivalServer]:
    with (
        local_triton(work.repository.path, TritonOptions(threads=own_threads or threads)) as triton,
        served(work.repository.path, "--engine", "triton", "--triton-url", triton.grpc_url) as process,
        awake_at_the_end(Processes(process.pid, (triton.process_id,))) as processes,
    ):
        yield RivalServer(processes, espalier_endpoints(process, work), 0)


@contextlib.contextmanager
def _bare(own_threads: int | None, work: Work, threads: int) -> Iterator[RivalServer]:
    with _triton(work.repository.path, own_threads or threads) as (triton, processes):
        yield RivalServer(processes, [_endpoint(triton, work.image_name)], 0)


@contextlib.contextmanager
def _by_hand(kind: str, own_threads: int | None, work: Work, threads: int) -> Iterator[RivalServer]:
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models"
        (write_separate if kind == "separate" else write_shared)(work.models, repository)
        lines = count_lines(_written_files(repository))
        with _triton(repository, own_threads or threads) as (triton, processes):
            yield RivalServer(processes, [_endpoint(triton, "image")], lines)


@contextlib.contextmanager
def _triton(repository: Path, threads: int) -> Iterator[tuple[LocalTriton, Processes]]:
    with (
        local_triton(repository, TritonOptions(threads=threads)) as triton,
        awake_at_the_end(Processes(triton.process_id)) as processes,
    ):
        yield triton, processes


def _endpoint(triton: LocalTriton, image: str) -> Endpoint:
    return Endpoint("gRPC", V2Grpc(image), int(triton.addresses.grpc.rpartition(":")[2]))


@contextlib.contextmanager
def awake_at_the_end(processes: Processes) -> Iterator[Processes]:
    """Wake them at the end: what sleeps does not end."""
    try:
        yield processes
    finally:
        processes.resume()


def write_separate(models: Path, folder: Path) -> None:
    """Write `folder` with the whole networks below `models`, and all_tasks, which hands the image to each."""
    files = {file.stem: file for file in sorted((models / "separate").glob("*.onnx"))}
    steps = [_step(name, file, "image", name) for name, file in files.items()]
    _write(folder, files, steps)


def write_shared(models: Path, folder: Path) -> None:
    """Write `folder` with trunk and heads below `models`, and all_tasks, which runs the trunk and then the heads."""
    heads = {file.stem: file for file in sorted((models / "shared" / "heads").glob("*.onnx"))}
    trunk = models / "shared" / "trunk.onnx"
    steps = [_step("trunk", trunk, "image", "features")]
    steps += [_step(f"head-{name}", file, "features", name) for name, file in heads.items()]
    _write(folder, {"trunk": trunk, **{f"head-{name}": file for name, file in heads.items()}}, steps)


def _written_files(folder: Path) -> list[Path]:
    """Return what a user would have had to write."""
    return sorted(folder.glob("*/config.pbtxt"))


def _write(folder: Path, files: Mapping[str, Path], steps: Iterable[str]) -> None:
    for name, file in files.items():
        version = folder / name / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").symlink_to(file.absolute())
        tensors = [*_tensors(file, "input"), *_tensors(file, "output")]
        head = ['backend: "onnxruntime"', f"max_batch_size: {_ROWS}", "instance_group { count: 1 }", "dynamic_batching { }"]
        (folder / name / "config.pbtxt").write_text("\n".join([*head, *tensors]) + "\n")
    (folder / "all_tasks" / "1").mkdir(parents=True)
    tasks = [file for name, file in files.items() if name != "trunk"]
    image = _tensors(next(iter(files.values())), "input", "image")
    outputs = [line for file in tasks for line in _tensors(file, "output", file.stem)]
    head = ['platform: "ensemble"', f"max_batch_size: {_ROWS}", *image, *outputs]
    (folder / "all_tasks" / "config.pbtxt").write_text("\n".join([*head, "ensemble_scheduling {", *steps, "}"]) + "\n")


def _tensors(file: Path, kind: str, name: str = "") -> list[str]:
    """Return the line of the network's one input or output."""
    graph = onnx.load(file, load_external_data=False).graph
    (value,) = graph.input if kind == "input" else graph.output
    tensor = value.type.tensor_type
    dims = [dim.dim_value for dim in tensor.shape.dim][1:]
    return [f'{kind} {{ name: "{name or value.name}" data_type: {_TYPES[tensor.elem_type]} dims: {dims} }}']


def _step(model: str, file: Path, takes: str, gives: str) -> str:
    graph = onnx.load(file, load_external_data=False).graph
    maps = f'input_map {{ key: "{graph.input[0].name}" value: "{takes}" }} output_map {{ key: "{graph.output[0].name}" value: "{gives}" }}'
    return f'  step {{ model_name: "{model}" model_version: -1 {maps} }}'
