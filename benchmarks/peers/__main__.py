"""Measures the peers: `python -m benchmarks.peers [--quick] [--json FILE]`. Linux; the first run installs them (docs/peers.md)."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.peers.measure import Plan, measure
from benchmarks.peers.peers import all_peers
from benchmarks.peers.report import table, to_json
from benchmarks.peers.work import Work, prepare_work
from serving.engines.cores import available_cores
from serving.repository import read_repository

_TASKS = 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few runs: to see that it works")
    parser.add_argument("--peer", action="append", metavar="NAME", help="only those whose names contain this; can be repeated")
    parser.add_argument("--threads", type=int, default=available_cores(), help="of each session")
    parser.add_argument("--family", type=Path, help="keep the networks here, and find them here the next time")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that no server stays behind
    counts = (1, 2, _TASKS)
    quick = Plan(counts, turns=2, runs=2, seconds=2.0, throughput_turns=1, threads=given.threads)
    plan = quick if given.quick else Plan(counts, threads=given.threads)
    wanted = [name.lower() for name in given.peer or [""]]
    peers = [peer for peer in all_peers() if any(name in peer.name.lower() for name in wanted)]
    with tempfile.TemporaryDirectory() as folder:
        work = _make_work(given.family or Path(folder) / "family", Path(folder) / "models")
        rows = measure(work, peers, plan, lambda sentence: print(sentence, file=sys.stderr, flush=True))
    print(f"ResNet-50 with random weights, {_TASKS} tasks; {plan.threads} threads a session; {describe_machine()}\n")
    print(table(rows, plan))
    if given.json:
        given.json.write_text(to_json(rows, plan))


def _make_work(family: Path, models: Path) -> Work:

    files = {f"task-{number}": family / f"task-{number}.onnx" for number in range(_TASKS)}
    if not (family / "repository").exists():
        from benchmarks.synthetic import make_family, random_backbone  # torch, only when there is something to make

        family.mkdir(parents=True, exist_ok=True)
        make_family(random_backbone("resnet50", 224), [("layer4.1",)] * _TASKS, 100, family)
    return prepare_work(read_repository(family / "repository"), files, models)


if __name__ == "__main__":
    main()
