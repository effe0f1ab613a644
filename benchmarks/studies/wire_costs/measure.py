"""What a request of a tiny network costs, and what it would cost if ours did nothing.

`python -m benchmarks.studies.wire_costs [REPOSITORY]`

Servers in processes of their own, asked in turn by 1 and by `--clients` connections, each one request at a time, with prepared bytes:
  ours          binary HTTP and gRPC; REPOSITORY, by default one of four tiny tasks, made for it
  empty         servers that answer a few bytes whatever comes, on the same libraries (benchmarks/studies/wire_costs/empty.py)
Printed are the server's processor time for a request, which other programs on the machine hardly change, and the requests per second,
which they do; medians of `--turns`. Then what in this process alone, without a server, the parts take that no server can leave out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import onnxruntime as ort
from tritonclient.grpc import service_pb2

from benchmarks.harness.closed_loop import closed_loop
from benchmarks.harness.inputs import grpc_message, random_rows
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.processor_time import processor_s
from benchmarks.harness.served import ServerProcess, served
from benchmarks.load.wires import Wire, address_of, connect, make_requests
from benchmarks.models.tiny import write_tiny_family
from contract.repository import Repository, Task, read_repository
from serving.engines.onnxruntime.session import session_options

_EMPTY = "benchmarks.studies.wire_costs.empty"
_pb: Any = service_pb2


@dataclass(frozen=True)
class _WireCost:
    """Of a server under a number of clients: microseconds of processor time for a request, and requests per second; one for each turn."""

    server: str
    clients: int
    processor_us: tuple[float, ...]
    per_s: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.server:34}{self.clients:4} clients {median(self.processor_us):7.0f} us {median(self.per_s):9,.0f}/s"


def _measure(path: Path, clients: int, seconds: float, turns: int) -> list[_WireCost]:
    """Return what a request for the first task of the repository at `path` costs, on ours and on empty servers."""
    repository = read_repository(path)
    task = next(iter(repository.tasks))
    quiet = ("--log-level", "error")
    with ExitStack() as stack:
        ours = stack.enter_context(served(path, *quiet))
        unary, reads = (stack.enter_context(served(path, program=(_EMPTY, kind))) for kind in ("unary", "reads"))
        servers = {
            "empty, HTTP": (unary, Wire.http),
            "espalier, HTTP": (ours, Wire.http),
            "empty, gRPC": (unary, Wire.grpc),
            "empty, gRPC, the handler reads": (reads, Wire.grpc),
            "espalier, gRPC": (ours, Wire.grpc),
        }
        asks = {
            name: partial(_cost, server, wire, make_requests(repository, wire, [task])[task])
            for name, (server, wire) in servers.items()
        }
        return asyncio.run(_in_turn(asks, (1, clients), seconds, turns))


async def _in_turn(asks: Mapping[str, Callable[..., Any]], counts: Sequence[int], seconds: float, turns: int) -> list[_WireCost]:
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for _ in range(turns):
        for count in counts:
            for name, ask in asks.items():
                found.setdefault((name, count), []).append(await ask(count, seconds))
    by_server = sorted(found.items(), key=lambda item: [*asks].index(item[0][0]))
    return [_WireCost(name, count, *(tuple(values) for values in zip(*turn, strict=True))) for (name, count), turn in by_server]


async def _cost(server: ServerProcess, wire: Wire, request: bytes, clients: int, seconds: float) -> tuple[float, float]:
    """Return microseconds of the server's processor time for a request, and requests per second."""
    async with AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(connect(wire, address_of(server, wire))) for _ in range(clients)]
        before = processor_s([server.pid])
        loop = await closed_loop([partial(call, request) for call in calls], seconds)
        return (processor_s([server.pid]) - before) / len(loop.spans) * 1e6, loop.per_s


def _parts(repository: Repository, rounds: int) -> dict[str, float]:
    """Return microseconds of processor time, in this process: one row through the segments of the first task, and the messages."""
    name, task = next(iter(repository.tasks.items()))
    rows = random_rows(task)
    message = grpc_message(name, task, rows)
    (spec,) = task.inputs
    answer = _pb.ModelInferResponse(model_name=name, model_version="1")
    answer.outputs.add(name=name, datatype="FP32", shape=[1, 4])
    head = msgspec.json.encode({"inputs": [{"name": spec.name, "datatype": spec.dtype, "shape": [1, *spec.shape]}]})
    return {
        "ONNX Runtime, all segments": _processor_us(_chain(repository, task, rows), rounds),
        "protobuf, in and out": _processor_us(
            lambda: (_pb.ModelInferRequest.FromString(message), answer.SerializeToString()), rounds
        ),
        "msgspec, in and out": _processor_us(lambda: msgspec.json.encode(msgspec.json.decode(head)), rounds),
    }


def _chain(repository: Repository, task: Task, rows: Mapping[str, Any]) -> Callable[[], object]:
    """Return what runs the segments of `task` one after the other."""
    options = session_options(1)
    providers = ["CPUExecutionProvider"]
    steps = [(step, ort.InferenceSession(repository.model_file(step.segment), options, providers)) for step in task.steps]

    def run() -> object:
        tensors = dict(rows)
        for step, session in steps:
            names = [value.name for value in session.get_inputs()]
            found = session.run(None, dict(zip(names, (tensors[name] for name in step.inputs), strict=True)))
            tensors.update(zip(step.outputs, found, strict=True))
        return tensors

    return run


def _processor_us(work: Callable[[], object], rounds: int) -> float:
    """Return the median of several means."""
    means = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(rounds):
            work()
        means.append((time.process_time() - started) / rounds * 1e6)
    return median(means)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, nargs="?")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.repository or write_tiny_family(Path(folder) / "tiny").path
        print(describe_machine())
        costs = _measure(path, given.clients, given.seconds, given.turns)
        alone = _parts(read_repository(path), rounds=max(1, round(300 * given.seconds)))
    print(*costs, sep="\n")
    print(*(f"{name:34} {microseconds:7.0f} us" for name, microseconds in alone.items()), sep="\n")
    if given.json:
        given.json.write_text(
            json.dumps({"machine": describe_machine(), "costs": list(map(asdict, costs)), "parts": alone}, indent=1)
        )
