"""What each server adds to a network that takes next to no time.

`python -m benchmarks.peers.tiny [--only espalier,litserve]`

Every peer on the wires that it has, in one run: all are started, and all but the one whose turn it is sleep. One task of a tiny network;
one client with one request after the other, and several at a time. Added is the median latency of one client beyond the bare network's in
this process. Processor time (user, system) is that of all of a server's processes, divided by the requests that were answered meanwhile; on
a busy machine it is what can be compared. A peer is there as it serves one network, where it can: nothing is to be shared by one task.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import onnxruntime as ort

from benchmarks.harness.closed_loop import ClosedLoop
from benchmarks.harness.machine import describe_machine
from benchmarks.harness.pinning import on_cores
from benchmarks.models.tiny import write_tiny_forks
from benchmarks.peers.ask import load
from benchmarks.peers.measure import Entrant, MeasurePlan, RivalRow, started_rivals, take_turns, wake
from benchmarks.peers.rivals import choose_rivals
from benchmarks.peers.server import SEPARATE, Rival
from benchmarks.peers.work import Work, prepare_work

_TASKS = 2  # so that there is a trunk, which espalier has


@dataclass
class _Load:
    """So many clients, a number for each turn: milliseconds of a request, requests per second, milliseconds of processor time for one."""

    latency_ms: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)
    processor_ms: list[float] = field(default_factory=list)

    def add(self, loop: ClosedLoop, processor_s: float) -> None:
        """Add a turn."""
        self.latency_ms.append(median(span.seconds for span in loop.spans) * 1000)
        self.per_s.append(loop.per_s)
        self.processor_ms.append(processor_s / len(loop.spans) * 1000)


@dataclass
class TinyRow:
    """One peer over one protocol. loads: by clients. bare_ms: of the network in this process, beside it. missing: why nothing is there."""

    peer: str
    variant: str
    version: str
    protocol: str = ""
    loads: dict[int, _Load] = field(default_factory=dict)
    bare_ms: list[float] = field(default_factory=list)
    missing: str = ""

    @property
    def added_ms(self) -> float:
        """Return what one client's request takes longer than the bare network."""
        return median(self.loads[1].latency_ms) - median(self.bare_ms)

    def __str__(self) -> str:
        who = f"{self.peer}, {self.variant}{', ' * bool(self.protocol)}{self.protocol}"
        if self.missing or not self.loads:
            return f"{who}: not measured, or not to the end: {self.missing}"
        cells = (f"{median(one.per_s):9,.0f} {median(one.processor_ms):8.2f} ms" for one in self.loads.values())
        return f"{who:56}{self.added_ms:8.2f} ms{''.join(cells)}"


def choose_single(rivals: Iterable[Rival]) -> list[Rival]:
    """Return each rival in one variant: with separate networks where it has that, of which a request for one task runs one."""
    chosen: dict[str, Rival] = {}
    for rival in rivals:
        if rival.name not in chosen or rival.variant == SEPARATE:
            chosen[rival.name] = rival
    return [*chosen.values()]


def measure_tiny(work: Work, rivals: Sequence[Rival], plan: MeasurePlan) -> list[TinyRow]:
    """Return a row for each rival and protocol: `plan.throughput_turns` turns of `plan.seconds`, with 1 client and with `plan.clients`."""
    with started_rivals(work, rivals, plan, print) as found:
        rows = {id(one): _row(one.row if isinstance(one, Entrant) else one) for one in found}
        entrants = [one for one in found if isinstance(one, Entrant)]
        for turn in range(plan.throughput_turns):
            print(f"Turn {turn + 1} of {plan.throughput_turns}")
            take_turns(entrants, lambda one: _measure(one, rows[id(one)], work, plan))
        for one in entrants:
            rows[id(one)].missing = one.row.missing
        return [*rows.values()]


def _row(row: RivalRow) -> TinyRow:
    return TinyRow(row.peer, row.variant, row.version, row.protocol, missing=row.missing)


def _measure(entrant: Entrant, row: TinyRow, work: Work, plan: MeasurePlan) -> None:
    processes = entrant.server.processes
    row.bare_ms.append(_bare_ms(work))
    with processes.awake(), on_cores(plan.cores.clients):
        asyncio.run(wake(entrant, work, plan.clients))
        for clients in (1, plan.clients):
            before = processes.processor_s()
            loop = asyncio.run(load(entrant.endpoint, work, 1, clients, plan.seconds))
            row.loads.setdefault(clients, _Load()).add(loop, processes.processor_s() - before)


def _bare_ms(work: Work, runs: int = 200) -> float:
    """Return the median of so many runs of the first task's whole network in this process."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(work.models / "separate" / f"{work.tasks[0]}.onnx", options, ["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: work.image}
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        session.run(None, inputs)
        seconds.append(time.perf_counter() - started)
    return median(seconds) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="peers, with commas")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    rivals = choose_single(choose_rivals([word for word in given.only.split(",") if word]))
    plan = MeasurePlan(
        (1,), clients=given.clients, seconds=given.seconds, throughput_turns=given.turns, threads=1, room_bytes=10**9
    )
    with tempfile.TemporaryDirectory() as folder:
        work = prepare_work(*write_tiny_forks(Path(folder), _TASKS), Path(folder) / "models")
        rows = measure_tiny(work, rivals, plan)
    print(describe_machine())
    bare_ms = median([ms for row in rows for ms in row.bare_ms] or [0.0])
    print(f"Added to {bare_ms:.2f} ms; requests/s and processor time of a request, with 1 client and with {given.clients}")
    print(*rows, sep="\n")
    if given.json:
        given.json.write_text(json.dumps({"machine": describe_machine(), "rows": list(map(asdict, rows))}, indent=1))


if __name__ == "__main__":
    main()
