"""What runs side by side are worth: `python -m benchmarks.studies.thread_allocation REPOSITORY`.

The engine without a server, each way to share out the cores.

Ways take turns, with open engines of one process; rates are counted as benchmarks/harness/closed_loop.py says.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import onnxruntime as ort

from benchmarks.harness.machine import describe_machine
from benchmarks.load.bare import BareEngine, EngineSetting, settings
from contract.repository import ALL_TASKS, Repository, read_repository
from contract.system import available_cores


@dataclass(frozen=True)
class _Case:
    """callers: each with one request after the other. models: that they ask for, in turn."""

    name: str
    callers: int
    models: tuple[str, ...]


@dataclass(frozen=True)
class _AllocationTurns:
    """Of each turn: answers a second, and the median latency in milliseconds."""

    per_s: tuple[float, ...]
    latency_ms: tuple[float, ...]


def cases(repository: Repository, callers: Sequence[int]) -> tuple[_Case, ...]:
    """Return so many callers that ask for one task, and for all."""
    kinds = {"one task": tuple(repository.tasks), "all tasks": (ALL_TASKS,)}
    return tuple(_Case(name, count, models) for name, models in kinds.items() for count in callers)


def measure(
    repository: Repository, ways: Sequence[EngineSetting], asked: Iterable[_Case], turns: int, seconds: float, cache: Path
) -> Mapping[tuple[_Case, EngineSetting], _AllocationTurns]:
    """Measure every way in every case. cache: a folder for optimised segments."""
    found: dict[tuple[_Case, EngineSetting], list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        engines = {way: stack.enter_context(BareEngine(repository, way, cache)) for way in ways}
        for case in list(asked) * turns:
            for way, engine in engines.items():
                loop = engine.loop(case.models, case.callers, seconds)
                latencies = loop.latencies_s or [span.seconds for span in loop.spans]
                found.setdefault((case, way), []).append((loop.per_s, median(latencies) * 1000))
    return {key: _AllocationTurns(*zip(*values, strict=True)) for key, values in found.items()}


def describe(found: Mapping[tuple[_Case, EngineSetting], _AllocationTurns]) -> str:
    """Return a line for each case and way: medians of the turns, and the rates' range."""
    return "\n".join(
        f"{case.name}, {case.callers} callers  {way!s:36} {median(one.per_s):7.2f}/s ({min(one.per_s):.2f}-{max(one.per_s):.2f})  "
        f"{median(one.latency_ms):8.1f} ms"
        for (case, way), one in found.items()
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=available_cores())
    given = parser.parse_args(arguments)
    repository = read_repository(given.repository)
    with tempfile.TemporaryDirectory() as folder:
        asked = cases(repository, given.callers)
        found = measure(repository, settings(given.threads, [None]), asked, given.turns, given.seconds, Path(folder))
    print(f"{given.turns} turns of {given.seconds:g} s; {describe_machine()}, ONNX Runtime {ort.__version__}")
    print(describe(found))


if __name__ == "__main__":
    main()
