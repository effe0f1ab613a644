"""What attacks do to a server: its memory, its event loop, and an honest client beside them (Linux)."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.harness.http_wire import KeptConnection, binary_body, infer_bytes
from benchmarks.harness.served import ServerProcess, served
from benchmarks.studies.hostile.attack import AROUND_BYTES, MESSAGE_BYTES, Attack
from benchmarks.studies.hostile.watched import LongestStand
from contract.dtypes import NUMPY_DTYPES
from contract.repository import Repository

_MOST_STAND_S = 0.05  # processor time of the event loop's thread in one callback
_CAP_BYTES = 12 << 30  # of addresses: most of them are libraries'
_PROCESS_BYTES = 64 << 20  # of one that is begun to decode a picture: Python and libraries, nothing of the request
_PAUSE_S = 0.02
_SETTLE_S = 0.05


@dataclass(frozen=True)
class Effect:
    """What an attack did. peak_bytes: memory beyond rest, of the server and the processes that it has begun.

    stand_s, stood_in: the longest callback of the event loop, in processor time, and what it was.
    asked, refused, slowest_s: of an honest client's requests meanwhile.
    """

    name: str
    outcome: str
    seconds: float
    peak_bytes: int
    budget_bytes: int
    stand_s: float
    stood_in: str
    asked: int
    refused: int
    slowest_s: float
    faults: tuple[str, ...]


@dataclass
class _Honest:
    """A client that asks for one row again and again."""

    asked: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    stop: bool = field(default=False)

    async def ask(self, address: tuple[str, int], request: bytes) -> None:
        """Ask until `stop`."""
        connection = await KeptConnection.open(address)
        while not self.stop:
            began = time.perf_counter()
            try:
                self.refused += (await connection.ask(request)).status != 200
            except (OSError, EOFError):
                self.refused += 1
            self.asked += 1
            self.slowest_s = max(self.slowest_s, time.perf_counter() - began)
            await asyncio.sleep(_PAUSE_S)
        await connection.close()


@dataclass(frozen=True)
class Target:
    """A server that is watched. honest: the bytes of a request that it answers with 200."""

    server: ServerProcess
    longest: LongestStand
    honest: bytes

    def play(self, attack: Attack) -> Effect:
        """Return what `attack` does."""
        return asyncio.run(self._play(attack))

    async def _play(self, attack: Attack) -> Effect:
        async with self._beside() as honest:
            await asyncio.sleep(_SETTLE_S)
            self.longest.forget()
            before = _processes(self.server.pid)
            rest = sum(map(_resident_bytes, before))
            for pid in before:
                _forget_peak(pid)
            began = time.perf_counter()
            outcome = await attack.play(self.server)
            seconds = time.perf_counter() - began
            await asyncio.sleep(_SETTLE_S)
            now = _processes(self.server.pid)
            peak = max(0, sum(map(_peak_of, now)) - rest - _PROCESS_BYTES * len(set(now) - set(before)))
        stand_s, what = self.longest.seconds, self.longest.what
        faults = tuple(_faults(attack, outcome, peak, stand_s, honest))
        figures = (seconds, peak, attack.budget_bytes, stand_s, what, honest.asked, honest.refused, honest.slowest_s)
        return Effect(attack.name, outcome, *figures, faults)

    @contextlib.asynccontextmanager
    async def _beside(self) -> AsyncIterator[_Honest]:
        honest = _Honest()
        asking = asyncio.create_task(honest.ask(self.server.http_host_port, self.honest))
        try:
            yield honest
        finally:
            honest.stop = True
            await asking


def _faults(attack: Attack, outcome: str, peak: int, stand_s: float, honest: _Honest) -> Iterator[str]:
    if outcome not in attack.outcomes:
        yield f"it ended with {outcome}; right is {' or '.join(sorted(attack.outcomes))}"
    if peak > attack.budget_bytes + AROUND_BYTES:
        yield f"it took {peak / 1e6:.0f} MB; promised are {attack.budget_bytes / 1e6:.0f} and {AROUND_BYTES / 1e6:.0f} around it"
    if stand_s > _MOST_STAND_S:
        yield f"the event loop stood for {1000 * stand_s:.0f} ms of processor time"
    if honest.refused:
        yield f"an honest client was refused {honest.refused} times of {honest.asked}"


@contextlib.contextmanager
def watched(repository: Repository, *options: str) -> Iterator[Target]:
    """Serve `repository`, whose first task takes one input, in a process whose memory is capped and whose event loop is watched."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "longest"
        longest = LongestStand(path)
        program = ("benchmarks.studies.hostile.watched", str(path))
        quiet = ("--no-segment-cache", "--log-level", "error", "--max-message-bytes", str(MESSAGE_BYTES))
        with served(repository.path, *quiet, *options, program=program) as server:
            resource.prlimit(server.pid, resource.RLIMIT_AS, (_CAP_BYTES, _CAP_BYTES))
            yield Target(server, longest, _honest_request(repository))


def _honest_request(repository: Repository) -> bytes:
    """Return a request for one row of the first task."""
    task = next(iter(repository.tasks.values()))
    (spec,) = task.inputs
    return infer_bytes(task.name, *binary_body(spec, np.zeros((1, *spec.shape), NUMPY_DTYPES[spec.dtype])))


def measure(target: Target, attacks: Iterable[Attack], tell: Callable[[Effect], None] = lambda effect: None) -> list[Effect]:
    """Return what each of `attacks` does, one after the other."""
    effects = []
    for attack in attacks:
        effects.append(target.play(attack))
        tell(effects[-1])
    return effects


def _processes(pid: int) -> list[int]:
    """Return `pid` and the processes that it has begun and that are there."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [pid, *(int(child) for task in tasks for child in task.read_text().split())]


def _forget_peak(pid: int) -> None:
    """Let the peak of a process's resident memory be what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _resident_bytes(pid: int) -> int:
    """Return what a process has resident now, 0 if it has ended."""
    return _status(pid, "VmRSS:")


def _peak_of(pid: int) -> int:
    """Return the most memory that a process has had resident since `_forget_peak`, or since it began; 0 if it has ended."""
    return _status(pid, "VmHWM:")


def _status(pid: int, key: str) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)
    return 0
