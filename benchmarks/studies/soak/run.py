"""Sends the requests of a soak, and notes what comes back and what the server holds.

A part of the requests is good, the others wrong in every way that there is, or made to cost more than they should, over HTTP and gRPC,
from some connections at once, to an `espalier serve` in a process of its own, which loads tasks again meanwhile. Resident memory is
sampled; the growth is from the tenth of the samples after the warm-up to the last tenth, by their medians. What the server holds at rest
is compared, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2

from benchmarks.harness.http_wire import HttpConnection, KeptConnection, Reply, request_bytes
from benchmarks.harness.served import ServerProcess, served
from benchmarks.studies.soak.hostile import hostile_cases
from benchmarks.studies.soak.requests import Case, GrpcCase, HttpCase, good_and_bad_cases
from benchmarks.studies.soak.state import Holds, at_rest
from contract.repository import Repository

LIMIT_PERCENT = 2.0
WARM_UP = 0.2
_SAMPLES = 500
_TIMEOUT_S = 60.0
REST_S = 30.0  # memory goes back after ten idle seconds
_TOKEN = "soak"
_LOAD_AGAIN_S = 0.5
_pb: Any = service_pb2


@dataclass(frozen=True)
class MemorySample:
    """The memory after so many requests."""

    requests: int
    resident_bytes: int


@dataclass(frozen=True)
class Soak:
    """What was sent and what came back: answers by case and status. wrong: answers that should not have been, a line each.

    before, after: what the server held at rest, after the warm-up and at the end. loads: of tasks, meanwhile.
    """

    requests: int
    seconds: float
    answers: Mapping[str, Mapping[str, int]]
    wrong: tuple[str, ...]
    samples: tuple[MemorySample, ...]
    before: Holds
    after: Holds
    loads: int

    @property
    def faults(self) -> Sequence[str]:
        """Return a line for each thing that is not as it should be, but for the growth."""
        return [*self.wrong, *self.after.more_than(self.before)]

    @property
    def growth_percent(self) -> float:
        """Return by how much memory has grown since the warm-up."""
        return growth_percent(self.samples, self.requests)


def growth_percent(samples: Sequence[MemorySample], requests: int, warm_up: float = WARM_UP) -> float:
    """Return the growth, in percent, from the first tenth of the samples after `warm_up` of the requests to their last tenth."""
    settled = [sample.resident_bytes for sample in samples if sample.requests >= warm_up * requests]
    tenth = max(1, len(settled) // 10)
    first, last = statistics.median(settled[:tenth]), statistics.median(settled[-tenth:])
    return 100 * (last - first) / first


def make_cases(repository: Repository, hostile: float = 0.3) -> Sequence[Case]:
    """Return all cases. hostile: what part of the requests is."""
    others = good_and_bad_cases(repository)
    worst = [*hostile_cases(next(iter(repository.tasks)))]
    share = sum(case.share for case in others) * hostile / (1 - hostile) / len(worst)
    return [*others, *(replace(case, share=share) for case in worst)]


def measure(repository: Repository, requests: int, clients: int = 8, seed: int = 0, rest_s: float = REST_S) -> Soak:
    """Return what `requests` requests do to a server of `repository`, sent over `clients` connections of each protocol.

    rest_s: how long at most the server may take to come to rest.
    """
    environment = {"ESPALIER_ADMIN_TOKEN": _TOKEN}
    with served(repository.path, "--no-segment-cache", "--log-level", "error", environment=environment) as server:
        return asyncio.run(_soak(server, repository, requests, clients, seed, rest_s))


async def _soak(server: ServerProcess, repository: Repository, requests: int, clients: int, seed: int, rest_s: float) -> Soak:
    run = _Run(server, make_cases(repository), requests, seed)
    await run.ask_alone()
    started = time.perf_counter()
    loads = Counter[str]()
    loading = asyncio.create_task(_load_again(server, [*repository.tasks], loads))
    await run.send(int(WARM_UP * requests), clients)
    before = await at_rest(server, None, rest_s)
    await run.send(requests, clients)
    seconds = time.perf_counter() - started
    loading.cancel()
    await asyncio.gather(loading, return_exceptions=True)
    after = await at_rest(server, before, rest_s)
    return run.result(seconds, before, after, loads)


async def _load_again(server: ServerProcess, tasks: Sequence[str], loads: Counter[str]) -> None:
    """Have one task after the other loaded, for ever; count how that ended."""
    connection = await KeptConnection.open(server.http_host_port)
    try:
        for task in itertools.cycle(tasks):
            path, token = f"/v2/repository/models/{task}/load", f"Authorization: Bearer {_TOKEN}"
            loads[str((await connection.ask(request_bytes("POST", path, token, body=b"{}"))).status)] += 1
            await asyncio.sleep(_LOAD_AGAIN_S)
    finally:
        await connection.close()


class _Run:
    """One soak, while it lasts."""

    def __init__(self, server: ServerProcess, cases: Sequence[Case], requests: int, seed: int) -> None:
        self._server = server
        self._requests = requests
        self._random = random.Random(seed)
        self._next = 0
        self._cases = cases
        self._by_kind = {kind: [case for case in cases if isinstance(case, kind)] for kind in (HttpCase, GrpcCase)}
        self._shares = {kind: list(itertools.accumulate(case.share for case in of)) for kind, of in self._by_kind.items()}
        self._answers: dict[str, Counter[str]] = {case.name: Counter() for case in cases}
        self._expected: dict[str, Any] = {}
        self._wrong: list[str] = []
        self._samples: list[MemorySample] = []

    async def ask_alone(self) -> None:
        """Note the answers that are to be the same always, while nobody else asks."""
        connection = await HttpConnection.open(self._server.http_host_port)
        async with grpc.aio.insecure_channel(self._server.grpc_address) as channel:
            for case in self._cases:
                if case.same and isinstance(case, HttpCase):
                    self._expected[case.name] = _numbers(await connection.ask(case.make(0)))
                elif case.same and isinstance(case, GrpcCase):
                    self._expected[case.name] = _numbers(await _called(channel, case, 0))
        await connection.close()

    async def send(self, until: int, clients: int) -> None:
        """Send requests until there have been `until`."""
        self._until = until
        connections = [self._use_http() for _ in range(clients)] + [self._use_grpc() for _ in range(clients)]
        await asyncio.gather(*connections)

    def result(self, seconds: float, before: Holds, after: Holds, loads: Counter[str]) -> Soak:
        """Return what has come of it."""
        self._sample(self._requests)
        answers = {name: dict(statuses) for name, statuses in self._answers.items()}
        wrong = [*self._wrong, *(f"a load: {status}" for status in loads if status != "200")]
        return Soak(self._requests, seconds, answers, tuple(wrong), tuple(self._samples), before, after, loads.total())

    def _draw(self, kind: type[HttpCase] | type[GrpcCase]) -> Iterator[tuple[int, Any]]:
        """Yield the numbers and cases of requests until enough are sent."""
        while (number := self._next) < self._until:
            self._next += 1
            if number % max(1, self._requests // _SAMPLES) == 0:
                self._sample(number)
            yield number, self._random.choices(self._by_kind[kind], cum_weights=self._shares[kind])[0]

    def _sample(self, number: int) -> None:
        self._samples.append(MemorySample(number, self._server.resident_bytes()))

    def _note(self, case: Case, status: int | str, answer: Any = None) -> None:
        self._answers[case.name][str(status)] += 1
        if case.statuses and status not in case.statuses:
            self._wrong.append(f"{case.name}: {status}")
        elif case.same and not np.allclose(_numbers(answer), self._expected[case.name], rtol=1e-4, atol=1e-5):
            self._wrong.append(f"{case.name}: other numbers than alone")

    async def _use_http(self) -> None:
        connection: HttpConnection | None = None
        for number, case in self._draw(HttpCase):
            connection = connection or await HttpConnection.open(self._server.http_host_port)
            status, reply = await _exchange(connection, case.make(number), bool(case.statuses))
            self._note(case, status, reply)
            if reply is None or not reply.keeps_open:
                await connection.close()
                connection = None
        if connection is not None:
            await connection.close()

    async def _use_grpc(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self._server.grpc_address, options=options) as channel:
            for number, case in self._draw(GrpcCase):
                call = _called(channel, case, number)
                if case.cancelled:
                    await asyncio.sleep(0.001 * (number % 3))
                    call.cancel()
                code = (await call.code()).name
                self._note(case, code, await call if case.same and code == "OK" else None)


def _called(channel: Any, case: GrpcCase, number: int) -> Any:
    return channel.unary_unary(f"/inference.GRPCInferenceService/{case.method}")(case.make(number), timeout=_TIMEOUT_S)


def _numbers(answer: Reply | bytes) -> Any:
    """Return the tensors of an answer in binary, as one."""
    if isinstance(answer, Reply):
        return np.frombuffer(answer.tensors, "<f4")
    return np.frombuffer(b"".join(_pb.ModelInferResponse.FromString(answer).raw_output_contents), "<f4")


async def _exchange(connection: HttpConnection, request: bytes, wait: bool) -> tuple[int | str, Reply | None]:
    """Return the status of the answer and the answer; none where the connection is of no use any more."""
    try:
        if not wait:
            connection.writer.write(request)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):  # who sends without reading may be kept waiting
                    await connection.writer.drain()
            return "not waited for", None
        async with asyncio.timeout(_TIMEOUT_S):
            reply = await connection.ask(request)
            return reply.status, reply
    except (OSError, EOFError):
        return "lost", None
    except TimeoutError:
        return "none in time", None
