"""Many small heads behind one trunk, asked in one request: `python -m benchmarks.studies.heads_together [REPOSITORY]`.

The engine without a server, with bundles of heads (docs/concepts/design.md, "Heads that run together") and without, in turn. How
long the trunk takes is what a request for it alone does; one with `asked` heads is compared with it. Without REPOSITORY, linear
probes with random weights are made on a timm network, which needs torch and some minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import onnxruntime as ort

from benchmarks.harness.inputs import random_rows
from benchmarks.harness.machine import describe_machine
from contract.plan import ExecutionPlan, make_plan
from contract.repository import Repository, read_repository
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions

_WAYS = {"one by one": False, "in bundles": True}
_SETTLE_S = 30.0


@dataclass(frozen=True)
class HeadsTogether:
    """Medians of one way to run, milliseconds: a request for the trunk alone, one for so many tasks; and the processor's time of each."""

    way: str
    asked: int
    trunk_ms: float
    request_ms: float
    trunk_processor_ms: float
    request_processor_ms: float

    @property
    def over_trunk(self) -> float:
        """Return how many times the trunk's time the request takes."""
        return self.request_ms / self.trunk_ms

    def __str__(self) -> str:
        return (
            f"{self.asked:5} heads {self.way:11} {self.request_ms:8.1f} ms, {self.over_trunk:.2f}x of the trunk's {self.trunk_ms:.1f} ms; "
            f"of the processor {self.request_processor_ms:.1f} and {self.trunk_processor_ms:.1f} ms"
        )


async def measure(
    repository: Repository, asked: Sequence[int], rounds: int, threads: int | None, cache: Path
) -> list[HeadsTogether]:
    """Return how long requests for the first so many tasks take, each way. The first step of each task has to be the trunk."""
    names = list(repository.tasks)
    plans = {count: make_plan(repository, names[:count]) for count in asked}
    trunk = _trunk(make_plan(repository, names[:1]))
    rows = random_rows(repository.tasks[names[0]])
    times: dict[tuple[str, int], list[tuple[float, float]]] = {}
    async with AsyncExitStack() as stack:
        engines = {}
        for way, bundles in _WAYS.items():
            options = EngineOptions(SessionStoreOptions(threads, provider="cpu", cache_folder=cache), bundles=bundles)
            engines[way] = EmbeddedEngine(repository, options=options)
            await engines[way].start()
            stack.push_async_callback(engines[way].aclose)
        for turn in range(-3, rounds):
            for count, plan in {0: trunk, **plans}.items():
                for way, engine in engines.items():
                    began, used = time.perf_counter(), time.process_time()
                    await engine.infer(plan, rows)
                    if turn >= 0:
                        times.setdefault((way, count), []).append((time.perf_counter() - began, time.process_time() - used))
            if turn < 0:
                await engines["in bundles"].settled(_SETTLE_S)
    middle = {key: [1000 * median(values) for values in zip(*found, strict=True)] for key, found in times.items()}
    return [
        HeadsTogether(way, count, middle[way, 0][0], middle[way, count][0], middle[way, 0][1], middle[way, count][1])
        for count in plans
        for way in _WAYS
    ]


def _trunk(plan: ExecutionPlan) -> ExecutionPlan:
    (tensor, *_), *_ = plan.steps[1].inputs
    return replace(plan, steps=plan.steps[:1], outputs={"trunk": tensor})


@contextmanager
def _probes(network: str, size: int, heads: int, classes: int) -> Iterator[Repository]:
    from benchmarks.models.synthetic import make_family, random_backbone
    from benchmarks.models.task_copies import Copies, copy_tasks

    with tempfile.TemporaryDirectory(prefix="espalier-heads-") as folder:
        family = make_family(random_backbone(network, size), [()], classes, Path(folder))
        yield copy_tasks(family.repository.path, {"task-0": Copies("probe", heads)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Make or take a repository, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "repository", type=Path, nargs="?", help="whose tasks are all of one trunk; default: one that is made, and deleted"
    )
    parser.add_argument("--network", default="resnet50", help="a timm name")
    parser.add_argument("--size", type=int, default=224, help="pixels of the square input")
    parser.add_argument("--heads", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--asked", type=int, nargs="+", default=[3, 64, 1000], help="tasks of a request")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as cache:
        if given.repository:
            found = asyncio.run(measure(read_repository(given.repository), given.asked, given.rounds, given.threads, Path(cache)))
        else:
            with _probes(given.network, given.size, given.heads, given.classes) as repository:
                found = asyncio.run(measure(repository, given.asked, given.rounds, given.threads, Path(cache)))
    print(f"{given.rounds} rounds; {describe_machine()}, ONNX Runtime {ort.__version__}")
    print("\n".join(map(str, found)))


if __name__ == "__main__":
    main()
