"""Whether the server's memory stays flat under good and bad requests: `python -m benchmarks.soak --requests 100000`.

Half of the requests are good, the others wrong in every way that there is (benchmarks/soak_requests.py), over HTTP and gRPC, from some
connections at once, to an `espalier serve` in a process of its own. Resident memory is sampled; the growth is from the tenth of the samples
after the warm-up to the last tenth, by their medians. Exit code 1 where it grows by more than the limit, or an answer is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc

from benchmarks.http_wire import Connection
from benchmarks.machine import describe_machine
from benchmarks.served import ServerProcess, served
from benchmarks.soak_requests import Case, GrpcCase, HttpCase, make_cases
from benchmarks.tiny import write_tiny_family
from serving.repository import Repository, read_repository

LIMIT_PERCENT = 2.0
WARM_UP = 0.2
_SAMPLES = 500
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Sample:
    """The memory after so many requests."""

    requests: int
    resident_bytes: int


@dataclass(frozen=True)
class Soak:
    """What was sent and what came back: answers by case and status. wrong: answers that should not have been, a line each."""

    requests: int
    seconds: float
    answers: Mapping[str, Mapping[str, int]]
    wrong: tuple[str, ...]
    samples: tuple[Sample, ...]

    @property
    def growth_percent(self) -> float:
        """Return by how much memory has grown since the warm-up."""
        return growth_percent(self.samples, self.requests)


def growth_percent(samples: Sequence[Sample], requests: int, warm_up: float = WARM_UP) -> float:
    """Return the growth, in percent, from the first tenth of the samples after `warm_up` of the requests to their last tenth."""
    settled = [sample.resident_bytes for sample in samples if sample.requests >= warm_up * requests]
    tenth = max(1, len(settled) // 10)
    first, last = statistics.median(settled[:tenth]), statistics.median(settled[-tenth:])
    return 100 * (last - first) / first


def measure(repository: Repository, requests: int, clients: int = 8, seed: int = 0) -> Soak:
    """Return what `requests` requests do to a server of `repository`, sent over `clients` connections of each protocol."""
    with served(repository.path, "--no-segment-cache", "--log-level", "error") as server:
        return asyncio.run(_Run(server, make_cases(repository), requests, seed).run(clients))


class _Run:
    """One soak, while it lasts."""

    def __init__(self, server: ServerProcess, cases: Sequence[Case], requests: int, seed: int) -> None:
        self._server = server
        self._requests = requests
        self._random = random.Random(seed)
        self._numbers = iter(range(requests))
        self._by_kind = {kind: [case for case in cases if isinstance(case, kind)] for kind in (HttpCase, GrpcCase)}
        self._shares = {kind: list(itertools.accumulate(case.share for case in of)) for kind, of in self._by_kind.items()}
        self._answers: dict[str, Counter[str]] = {case.name: Counter() for case in cases}
        self._wrong: list[str] = []
        self._samples: list[Sample] = []

    async def run(self, clients: int) -> Soak:
        started = time.perf_counter()
        connections = [self._use_http() for _ in range(clients)] + [self._use_grpc() for _ in range(clients)]
        await asyncio.gather(*connections)
        self._sample(self._requests)
        seconds = time.perf_counter() - started
        answers = {name: dict(statuses) for name, statuses in self._answers.items()}
        return Soak(self._requests, seconds, answers, tuple(self._wrong), tuple(self._samples))

    def _draw(self, kind: type[HttpCase] | type[GrpcCase]) -> Iterator[tuple[int, Any]]:
        """Yield the numbers and cases of requests until all are sent."""
        for number in self._numbers:
            if number % max(1, self._requests // _SAMPLES) == 0:
                self._sample(number)
            yield number, self._random.choices(self._by_kind[kind], cum_weights=self._shares[kind])[0]

    def _sample(self, number: int) -> None:
        self._samples.append(Sample(number, self._server.resident_bytes()))

    def _note(self, case: Case, status: int | str) -> None:
        self._answers[case.name][str(status)] += 1
        if status not in case.statuses and case.statuses:
            self._wrong.append(f"{case.name}: {status}")

    async def _use_http(self) -> None:
        connection: Connection | None = None
        for number, case in self._draw(HttpCase):
            connection = connection or await Connection.open(self._server.http_host_port)
            status, is_open = await _exchange(connection, case.make(number), bool(case.statuses))
            self._note(case, status)
            if not is_open:
                await connection.close()
                connection = None
        if connection is not None:
            await connection.close()

    async def _use_grpc(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(self._server.grpc_address, options=options) as channel:
            for number, case in self._draw(GrpcCase):
                call = channel.unary_unary(f"/inference.GRPCInferenceService/{case.method}")(
                    case.make(number), timeout=_TIMEOUT_S
                )
                if case.cancelled:
                    await asyncio.sleep(0.001 * (number % 3))
                    call.cancel()
                self._note(case, (await call.code()).name)


async def _exchange(connection: Connection, request: bytes, wait: bool) -> tuple[int | str, bool]:
    """Return the status of the answer, and whether the connection can be used again."""
    try:
        if not wait:
            connection.writer.write(request)
            await connection.writer.drain()
            return "not waited for", False
        async with asyncio.timeout(_TIMEOUT_S):
            reply = await connection.ask(request)
            return reply.status, reply.keeps_open
    except (OSError, EOFError) as error:
        return f"lost ({error})", False
    except TimeoutError:
        return "none in time", False


def main() -> None:
    """Soak a server and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, nargs="?", help="default: a family of tiny networks")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8, help="connections of each protocol")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=LIMIT_PERCENT, help="percent that memory may grow after the warm-up")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = read_repository(given.repository) if given.repository else write_tiny_family(Path(folder) / "repository")
        soak = measure(repository, given.requests, given.clients, given.seed)
    _print(soak)
    if given.json:
        found = {"machine": describe_machine(), "growth_percent": soak.growth_percent, **asdict(soak)}
        given.json.write_text(json.dumps(found, indent=1))
    raise SystemExit(1 if soak.wrong or soak.growth_percent > given.limit else 0)


def _print(soak: Soak) -> None:
    print(f"{soak.requests:,} requests in {soak.seconds:.0f} s; {describe_machine()}")
    for name, statuses in soak.answers.items():
        print(f"  {name:20} " + ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items())))
    for share in (0.0, 0.1, WARM_UP, 0.4, 0.6, 0.8, 1.0):
        sample = min(soak.samples, key=lambda sample: abs(sample.requests - share * soak.requests))
        print(f"  resident after {sample.requests:>9,} requests: {sample.resident_bytes / 1e6:7.1f} MB")
    print(f"growth after the warm-up: {soak.growth_percent:+.2f} %; wrong answers: {len(soak.wrong)}")
    for line in soak.wrong[:20]:
        print(f"  {line}")


if __name__ == "__main__":
    main()
