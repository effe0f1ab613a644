"""What the server adds to its engine, and how many requests of a tiny network it answers: `python -m benchmarks.overhead REPOSITORY`.

For a task with one input. Added latency: one client, one request after the other, uint8 input of one row, tritonclient over binary HTTP
and gRPC against a server in a process of its own; the bare engine in this process runs the same segments; they take turns. Throughput:
`--clients` connections, each one request at a time, with clients that do as little as can be done (prepared bytes). With four cores or
more, server and bare engine have their own and the clients theirs; with fewer they share them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import aio as grpc_client
from tritonclient.http import aio as http_client

from benchmarks.harness.closed_loop import closed_loop
from benchmarks.harness.http_wire import HttpConnection, binary_body, infer_bytes
from benchmarks.harness.inputs import grpc_message, random_rows
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.pinning import Cores, find_cores, on_cores
from benchmarks.harness.served import ServerProcess, served
from benchmarks.harness.timing import Timing, interleave
from contract.dtypes import Array
from contract.plan import make_plan
from contract.repository import Repository, read_repository
from serving.engines.embedded import EmbeddedEngine


@dataclass(frozen=True)
class Overhead:
    """Latencies of one request, and requests per second of `clients` connections; 0: not measured."""

    task: str
    bare: Timing
    http: Timing
    grpc: Timing
    clients: int = 0
    http_per_s: float = 0.0
    grpc_per_s: float = 0.0

    @property
    def http_adds_ms(self) -> float:
        """Return the difference of the medians."""
        return self.http.median_ms - self.bare.median_ms

    @property
    def grpc_adds_ms(self) -> float:
        """Return the difference of the medians."""
        return self.grpc.median_ms - self.bare.median_ms


def measure(path: Path, task: str, *, threads: int | None, rounds: int, seconds: float, clients: int) -> Overhead:
    """Return what serving `task` of the repository at `path` costs beyond the engine. seconds: of each throughput measurement, 0: none."""
    repository = read_repository(path)
    options = ["--threads", str(threads)] if threads else []
    cores = find_cores()
    with on_cores(cores.server), served(path, *options) as server, on_cores(cores.clients):
        return asyncio.run(_measure(repository, task, threads, rounds, seconds, clients, server, cores))


async def _measure(
    repository: Repository,
    name: str,
    threads: int | None,
    rounds: int,
    seconds: float,
    clients: int,
    server: ServerProcess,
    cores: Cores,
) -> Overhead:
    task = repository.tasks[name]
    plan = make_plan(repository, [name])
    rows = random_rows(task)
    with on_cores(cores.server):  # all its threads are made by `start`
        engine = EmbeddedEngine(repository, threads=threads)
        await engine.start()
    async with _tritonclients(server.http_address, server.grpc_address) as (http, rpc):
        timings = await interleave(
            {
                "bare": lambda: engine.infer(plan, rows),
                "http": lambda: http.infer(name, _inputs(http_client, rows), outputs=[http_client.InferRequestedOutput(name)]),
                "grpc": lambda: rpc.infer(name, _inputs(grpc_client, rows)),
            },
            rounds,
        )
    await engine.aclose()
    http_per_s = grpc_per_s = 0.0
    if seconds:
        spec = task.inputs[0]
        request = infer_bytes(name, *binary_body(spec, rows[spec.name]))
        http_per_s = await _throughput(lambda: _http_caller(server.http_host_port, request), clients, seconds)
        message = grpc_message(name, task, rows)
        grpc_per_s = await _throughput(lambda: _grpc_caller(server.grpc_address, message), clients, seconds)
    return Overhead(name, timings["bare"], timings["http"], timings["grpc"], clients, http_per_s, grpc_per_s)


@contextlib.asynccontextmanager
async def _tritonclients(http_address: str, grpc_address: str) -> AsyncIterator[tuple[Any, Any]]:
    async with (
        http_client.InferenceServerClient(http_address) as http,
        grpc_client.InferenceServerClient(grpc_address) as rpc,
    ):
        yield http, rpc


def _inputs(client: Any, rows: dict[str, Array]) -> list[Any]:
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, values in rows.items():
        tensor = client.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    return inputs


async def _throughput(connect: Callable[[], Any], clients: int, seconds: float) -> float:
    """Return requests per second of `clients` callers."""
    async with contextlib.AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(connect()) for _ in range(clients)]
        return (await closed_loop(calls, seconds)).per_s


@contextlib.asynccontextmanager
async def _http_caller(address: tuple[str, int], request: bytes) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    connection = await HttpConnection.open(address)

    async def call() -> None:
        reply = await connection.ask(request)
        if reply.status != 200:
            raise RuntimeError(reply.body.decode("utf-8", "replace"))

    try:
        yield call
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _grpc_caller(address: str, request: bytes) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        method = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # bytes in, bytes out
        yield lambda: method(request)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--task", help="default: the first")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each throughput measurement; 0: none")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    task = given.task or next(iter(read_repository(given.repository).tasks))
    found = measure(
        given.repository, task, threads=given.threads, rounds=given.rounds, seconds=given.seconds, clients=given.clients
    )
    print(f"{task}; {describe_machine()}")
    print(f"bare engine  {found.bare}")
    print(f"binary HTTP  {found.http}   adds {found.http_adds_ms:.2f} ms")
    print(f"gRPC         {found.grpc}   adds {found.grpc_adds_ms:.2f} ms")
    if given.seconds:
        print(f"{given.clients} clients: binary HTTP {found.http_per_s:,.0f} requests/s, gRPC {found.grpc_per_s:,.0f} requests/s")
    if given.json:
        given.json.write_text(json.dumps({"machine": describe_machine(), **asdict(found)}, indent=1))
