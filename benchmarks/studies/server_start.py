"""How long `espalier serve` takes to be ready with very many tasks: `python -m benchmarks.studies.server_start --tasks 2000`.

Linear probes on a tiny network, or the repository that is given. In turn, `--rounds` times each: a start of which nothing is known (the
user's cache is empty), and the next one. Seconds are from the process's begin to the line that says that it serves; the processor's are
those that the server's process has used by then, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.machine import describe_machine
from benchmarks.harness.processor_time import processor_s
from benchmarks.harness.served import served, with_cache
from benchmarks.models.task_copies import Copies, copy_tasks
from benchmarks.models.tiny import write_tiny_family

_WAYS = ("new", "known")


@dataclass(frozen=True)
class _Start:
    """One start. processor_s: of the server's process until it was ready."""

    way: str
    seconds: float
    processor_s: float
    resident_bytes: int


def _measure(repository: Path, rounds: int) -> list[_Start]:
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="espalier-cache-") as cache:
            found += [_start(repository, way, Path(cache)) for way in _WAYS]
    return found


def _start(repository: Path, way: str, cache: Path) -> _Start:
    started = time.perf_counter()
    with served(repository, "--log-level", "error", environment=with_cache(cache)) as server:
        seconds = time.perf_counter() - started
        return _Start(way, seconds, processor_s([server.pid]), server.resident_bytes())


@contextmanager
def _probes(count: int) -> Iterator[Path]:
    """Yield a repository of so many linear probes on a tiny network."""
    with tempfile.TemporaryDirectory(prefix="espalier-start-") as folder:
        path = write_tiny_family(Path(folder) / "repository").path
        copy_tasks(path, {"probe": Copies("probe", count)})
        yield path


def _describe(starts: list[_Start]) -> Iterator[str]:
    for way in _WAYS:
        of_way = [start for start in starts if start.way == way]
        seconds, used, resident = (
            statistics.median(values)
            for values in zip(*((start.seconds, start.processor_s, start.resident_bytes) for start in of_way), strict=True)
        )
        yield f"{way:6} ready after {seconds:6.2f} s, {used:6.2f} s of the processor, {resident / 1e6:,.0f} MB resident"


def main() -> None:
    """Make or take a repository, measure, print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, nargs="?", help="default: one that is made, and deleted at the end")
    parser.add_argument("--tasks", type=int, default=2000, help="of the one that is made")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.repository:
        starts = _measure(given.repository, given.rounds)
    else:
        with _probes(given.tasks) as repository:
            starts = _measure(repository, given.rounds)
    print("\n".join([describe_machine(), *_describe(starts)]))


if __name__ == "__main__":
    main()
