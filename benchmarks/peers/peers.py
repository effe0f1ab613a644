"""The peers: how each is started, in the way that its documentation recommends, and how it is asked."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.environments import pinned_version, set_up
from benchmarks.peers.lines import count_lines
from benchmarks.peers.processes import Processes, free_port, started
from benchmarks.peers.triton_models import write_separate, write_shared, written_files
from benchmarks.peers.wires import Form, RawBody, V2Grpc, V2Http, Wire
from benchmarks.peers.work import Work
from benchmarks.served import served
from serving.triton.command import TritonOptions
from serving.triton.local import local_triton

APPS = Path(__file__).with_name("apps")
SEPARATE, SHARED = "separate networks", "shared trunk"
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "BENTOML_DO_NOT_TRACK": "True"}
_TRITON = "24.10, ONNX Runtime through its Python backend"


@dataclass(frozen=True)
class Endpoint:
    """One way to ask a server. port: on the loopback."""

    protocol: str
    wire: Wire
    port: int


@dataclass(frozen=True)
class Server:
    """A server that has been started, ready or not. check: raises PeerUnavailable when it has ended. lines: that a user has to write."""

    processes: Processes
    endpoints: Sequence[Endpoint]
    lines: int
    check: Callable[[], None] = lambda: None


Serve = Callable[[Work, int], AbstractContextManager[Server]]


@dataclass(frozen=True)
class Peer:
    """One way to serve the work. serve: with the work and the threads of a session; raises PeerUnavailable or a ServingError."""

    name: str
    variant: str
    version: str
    serve: Serve


def all_peers() -> list[Peer]:
    """Return every peer in every variant, ours first."""
    kinds = {SEPARATE: "separate", SHARED: "shared"}
    peers = [Peer("espalier", SHARED, version("espalier"), _espalier)]
    peers += [Peer("FastAPI by hand", variant, version("fastapi"), partial(_fastapi, kind)) for variant, kind in kinds.items()]
    for name, package, serve in (
        ("LitServe", "litserve", _litserve),
        ("BentoML", "bentoml", _bentoml),
        ("MLServer", "mlserver", _mlserver),
        ("Ray Serve", "ray", _ray),
    ):
        peers += [Peer(name, variant, pinned_version(package), partial(serve, kind)) for variant, kind in kinds.items()]
    peers += [Peer("Triton", variant, _TRITON, partial(_triton, kind, None)) for variant, kind in kinds.items()]
    return [*peers, Peer("Triton, 1 thread a model", SHARED, _TRITON, partial(_triton, "shared", 1))]


@contextlib.contextmanager
def _espalier(work: Work, threads: int) -> Iterator[Server]:
    with served(work.repository.path, "--threads", str(threads)) as process:
        name = _input_name(work)
        ports = [int(address.rpartition(":")[2]) for address in (process.http_address, process.grpc_address)]
        endpoints = [Endpoint("HTTP", V2Http(name), ports[0]), Endpoint("gRPC", V2Grpc(name), ports[1])]
        processes = Processes(process.pid)
        try:
            yield Server(processes, endpoints, 0)
        finally:
            processes.resume()  # what sleeps does not end


def _fastapi(kind: str, work: Work, threads: int) -> AbstractContextManager[Server]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"fastapi_{kind}:app", "--port", str(port), "--log-level", "warning"]
    return _app(command, [APPS / f"fastapi_{kind}.py"], work, threads, Endpoint("HTTP", RawBody(), port))


def _litserve(kind: str, work: Work, threads: int) -> AbstractContextManager[Server]:
    file, python = APPS / f"litserve_{kind}.py", set_up("litserve") / "bin" / "python"
    return _app([str(python), str(file)], [file], work, threads, Endpoint("HTTP", Form(), free_port()))


def _bentoml(kind: str, work: Work, threads: int) -> AbstractContextManager[Server]:
    port, program = free_port(), set_up("bentoml") / "bin" / "bentoml"
    command = [str(program), "serve", f"bentoml_{kind}:{kind.title()}", "--host", "127.0.0.1", "--port", str(port)]
    return _app(command, [APPS / f"bentoml_{kind}.py"], work, threads, Endpoint("HTTP", Form(), port))


def _mlserver(kind: str, work: Work, threads: int) -> AbstractContextManager[Server]:
    folder, port, program = APPS / f"mlserver_{kind}", free_port(), set_up("mlserver") / "bin" / "mlserver"
    files = [folder / "runtime.py", folder / "model-settings.json"]
    ports = {"HTTP": free_port(), "GRPC": port, "METRICS": free_port()}
    variables = {f"MLSERVER_{name}_PORT": str(value) for name, value in ports.items()}
    variables |= {"MLSERVER_HOST": "127.0.0.1", "MLSERVER_METRICS_DIR": tempfile.gettempdir(), "MLSERVER_DEBUG": "false"}
    endpoint = Endpoint("gRPC", V2Grpc("image", as_bytes=True), port)
    return _app([str(program), "start", str(folder)], files, work, threads, endpoint, variables)


def _ray(kind: str, work: Work, threads: int) -> AbstractContextManager[Server]:
    file, python = APPS / f"ray_{kind}.py", set_up("ray") / "bin" / "python"
    return _app([str(python), str(file)], [file], work, threads, Endpoint("HTTP", RawBody(), free_port()))


@contextlib.contextmanager
def _app(
    command: Sequence[str],
    files: Sequence[Path],
    work: Work,
    threads: int,
    endpoint: Endpoint,
    variables: dict[str, str] | None = None,
) -> Iterator[Server]:
    """Run what a user has written in `files`."""
    variables = {"MODELS": str(work.models.absolute()), "THREADS": str(threads), "PORT": str(endpoint.port), **(variables or {})}
    with started(command, APPS, _QUIET | variables) as (processes, log):
        yield Server(processes, [endpoint], count_lines(files), log.check)


@contextlib.contextmanager
def _triton(kind: str, own_threads: int | None, work: Work, threads: int) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models"
        (write_separate if kind == "separate" else write_shared)(work.models, repository)
        with local_triton(repository, TritonOptions(threads=own_threads or threads)) as triton:
            port = int(triton.addresses.grpc.rpartition(":")[2])
            processes = Processes(triton.process_id)
            try:
                yield Server(processes, [Endpoint("gRPC", V2Grpc("image"), port)], count_lines(written_files(repository)))
            finally:
                processes.resume()


def _input_name(work: Work) -> str:
    return next(iter(work.repository.tasks.values())).inputs[0].name
