"""Triton as a rival: by hand, on our repository as it is, and behind our server; with as many threads a model as all others, and with 1."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

from benchmarks.harness.served import ServerProcess, served
from benchmarks.peers.lines import count_lines
from benchmarks.peers.processes import Processes
from benchmarks.peers.server import SEPARATE, SHARED, Endpoint, Rival, RivalServer
from benchmarks.peers.triton_models import write_separate, write_shared, written_files
from benchmarks.peers.wires import V2Grpc, V2Http
from benchmarks.peers.work import Work
from serving.local_triton.command import TritonOptions
from serving.local_triton.local import LocalTriton, local_triton

_VERSION = "24.10, ONNX Runtime through its Python backend"
_ONE = f"{SHARED}, 1 thread a model"


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
        lines = count_lines(written_files(repository))
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
