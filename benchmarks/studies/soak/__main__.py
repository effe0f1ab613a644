"""The command: `python -m benchmarks.studies.soak --requests 100000`.

Exit code 1 where memory grows by more than the limit, an answer is wrong, or something of what the server held at rest has not come back.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.machine import describe_machine
from benchmarks.models.tiny import write_tiny_family
from benchmarks.studies.soak.run import LIMIT_PERCENT, REST_S, WARM_UP, Soak, measure
from contract.repository import read_repository


def main() -> None:
    """Soak a server and print what came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("repository", type=Path, nargs="?", help="default: a family of tiny networks")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=8, help="connections of each protocol")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=LIMIT_PERCENT, help="percent that memory may grow after the warm-up")
    parser.add_argument("--rest", type=float, default=REST_S, metavar="S", help="seconds that the server has to come to rest")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = read_repository(given.repository) if given.repository else write_tiny_family(Path(folder) / "repository")
        soak = measure(repository, given.requests, given.clients, given.seed, given.rest)
    _print(soak)
    if given.json:
        found = {"machine": describe_machine(), "growth_percent": soak.growth_percent, **asdict(soak)}
        given.json.write_text(json.dumps(found, indent=1))
    raise SystemExit(1 if soak.faults or soak.growth_percent > given.limit else 0)


def _print(soak: Soak) -> None:
    print(f"{soak.requests:,} requests in {soak.seconds:.0f} s; {describe_machine()}")
    for name, statuses in soak.answers.items():
        print(f"  {name:20} " + ", ".join(f"{status}: {count:,}" for status, count in sorted(statuses.items())))
    for share in (0.0, 0.1, WARM_UP, 0.4, 0.6, 0.8, 1.0):
        sample = min(soak.samples, key=lambda sample: abs(sample.requests - share * soak.requests))
        print(f"  resident after {sample.requests:>9,} requests: {sample.resident_bytes / 1e6:7.1f} MB")
    for when, holds in (("after the warm-up", soak.before), ("at the end", soak.after)):
        waits = ", ".join(f"{name} {value:g}" for name, value in holds.gauges.items())
        size = f"{holds.resident_bytes / 1e6:.1f} MB, {holds.descriptors} descriptors, {holds.threads} threads"
        print(f"  at rest {when}: {size}, {waits}")
    print(f"growth after the warm-up: {soak.growth_percent:+.2f} %; wrong answers: {len(soak.wrong)}; tasks loaded: {soak.loads}")
    for line in soak.faults[:20]:
        print(f"  {line}")


if __name__ == "__main__":
    main()
