"""What a feature cache costs and saves: `python -m benchmarks.studies.feature_cache [REPOSITORY]`.

The engine without a server, one row a request, in turn and on a new input each round: task A without a cache and with one (nothing
repeats: the hash, and keeping), task B after A with it, and B's branch by itself, on features that are there. The bound is written
first: no request can be answered before its bytes are hashed. Without REPOSITORY, a timm network with random weights is made, which
needs torch and a minute; its two tasks share all but the last blocks.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort

from benchmarks.harness.inputs import random_rows
from benchmarks.harness.machine import describe_machine
from contract.dtypes import Array
from contract.errors import EspalierError
from contract.plan import ExecutionPlan, make_plan
from contract.repository import Repository, read_repository
from serving.engines.base import Call
from serving.engines.embedded import EmbeddedEngine, EngineOptions
from serving.engines.sessions.runtime import SessionStoreOptions
from serving.features.cached_engine import with_feature_cache
from serving.features.fingerprints import Fingerprints
from serving.features.taps import PlanTaps, worth_keeping

_KEEPS = Call(keeps=True)
_LIMIT_BYTES = 64 << 20
_HASH, _BRANCH = "hash", "B's branch"
_ALONE, _MISS, _AFTER = "A without", "A with, new input", "B after A"


class NothingShared(EspalierError):
    """Two tasks of which the second has nothing to gain from the first."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"Tasks {first!r} and {second!r} share no features that are kept; name two that share a trunk.")


@dataclass(frozen=True)
class FeatureCosts:
    """Medians in milliseconds by what was done, elapsed and of the processor. bytes: of an input."""

    bytes: int
    elapsed_ms: Mapping[str, float]
    processor_ms: Mapping[str, float]

    @property
    def over_branch(self) -> float:
        """Return how many times the time of its branch B takes after A."""
        return self.elapsed_ms[_AFTER] / self.elapsed_ms[_BRANCH]

    @property
    def bound(self) -> float:
        """Return how many times it takes at least: the hash, and then the branch."""
        return 1 + self.elapsed_ms[_HASH] / self.elapsed_ms[_BRANCH]

    @property
    def over_alone(self) -> float:
        """Return how many times as long a request takes with a cache where nothing repeats."""
        return self.elapsed_ms[_MISS] / self.elapsed_ms[_ALONE]

    def __str__(self) -> str:
        speed = self.bytes / self.elapsed_ms[_HASH] / 1e6
        head = f"bound: {self.bytes:,} bytes hashed at {speed:.2f} GB/s, so that B after A takes {self.bound:.3f}x of its branch at least"
        rows = [f"{what:18} {self.elapsed_ms[what]:8.3f} ms {self.processor_ms[what]:8.3f} ms" for what in self.elapsed_ms]
        ends = (f"B after A: {self.over_branch:.3f}x of its branch", f"nothing repeats: {self.over_alone:.3f}x of no cache")
        return "\n".join((head, f"{'':18} {'elapsed':>11} {'processor':>11}", *rows, *ends))


async def measure(repository: Repository, first: str, second: str, rounds: int, threads: int | None, cache: Path) -> FeatureCosts:
    """Return what requests for the tasks `first` (A) and `second` (B) take. Raises NothingShared."""
    plans = {name: make_plan(repository, [name]) for name in (first, second)}
    taps = PlanTaps(plans[second], worth_keeping(repository))
    left = taps.remainder(taps.taps.keys(), ())
    if not left.given:
        raise NothingShared(first, second)
    options = EngineOptions(SessionStoreOptions(threads, provider="cpu", cache_folder=cache))
    plain = EmbeddedEngine(repository, options=options)
    cached = with_feature_cache(plain, repository, _LIMIT_BYTES)
    prints, rows = Fingerprints(), random_rows(repository.tasks[first])
    await plain.start()
    times: dict[str, list[tuple[float, float]]] = {}
    try:
        for turn in range(-3, rounds):
            fresh = _fresh(rows, turn + 3)
            features = await plain.infer(_features(plans[second], left.given), fresh)
            branch = {**fresh, **features.outputs}
            works: Mapping[str, Callable[[], Awaitable[object]]] = {
                _HASH: partial(prints.of, fresh, taps.inputs),
                _BRANCH: partial(plain.infer, left.plan, branch),
                _ALONE: partial(plain.infer, plans[first], fresh),
                _MISS: partial(cached.infer, plans[first], fresh, _KEEPS),
                _AFTER: partial(cached.infer, plans[second], fresh, _KEEPS),
            }
            for what, work in works.items():
                took = await _timed(work)
                if turn >= 0:
                    times.setdefault(what, []).append(took)
        done = cached.features()
    finally:
        await plain.aclose()
    assert (done.hits, done.misses) == (rounds + 3, rounds + 3)
    middle = {what: [1000 * median(values) for values in zip(*found, strict=True)] for what, found in times.items()}
    return FeatureCosts(
        sum(rows[name].nbytes for name in taps.inputs),
        {what: elapsed for what, (elapsed, _) in middle.items()},
        {what: processor for what, (_, processor) in middle.items()},
    )


async def _timed(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    began, used = time.perf_counter(), time.process_time()
    await work()
    return time.perf_counter() - began, time.process_time() - used


def _fresh(rows: Mapping[str, Array], seed: int) -> Mapping[str, Array]:
    generator = np.random.default_rng(seed)
    return {name: generator.permutation(values.reshape(-1)).reshape(values.shape) for name, values in rows.items()}


def _features(plan: ExecutionPlan, names: frozenset[str]) -> ExecutionPlan:
    """Return the part of `plan` that gives the tensors `names`."""
    wanted, steps = set(names), []
    for step in reversed(plan.steps):
        if any(wanted.intersection(given) for given in step.outputs):
            steps.append(step)
            wanted.update(name for taken in step.inputs for name in taken)
    return ExecutionPlan(plan.inputs, tuple(reversed(steps)), {name: name for name in names}, plan.volume)


@contextmanager
def _two_tasks(network: str, size: int, blocks: Sequence[str]) -> Iterator[Repository]:
    from benchmarks.models.synthetic import make_family, random_backbone

    with tempfile.TemporaryDirectory(prefix="espalier-features-") as folder:
        yield make_family(random_backbone(network, size), [tuple(blocks), tuple(blocks)], 10, Path(folder)).repository


def main(arguments: Sequence[str] | None = None) -> None:
    """Make or take a repository, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, nargs="?", help="default: one that is made, and deleted")
    parser.add_argument("--tasks", nargs=2, help="A and B; default: the first two")
    parser.add_argument("--network", default="resnet50", help="a timm name")
    parser.add_argument("--size", type=int, default=224, help="pixels of the square input")
    parser.add_argument("--blocks", nargs="+", default=["layer4.0", "layer4.1", "layer4.2"], help="that each task tunes")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(arguments)

    def found(repository: Repository, cache: str) -> FeatureCosts:
        first, second = given.tasks or [*repository.tasks][:2]
        return asyncio.run(measure(repository, first, second, given.rounds, given.threads, Path(cache)))

    with tempfile.TemporaryDirectory() as cache:
        if given.repository:
            costs = found(read_repository(given.repository), cache)
        else:
            with _two_tasks(given.network, given.size, given.blocks) as repository:
                costs = found(repository, cache)
    print(f"{given.rounds} rounds; {describe_machine()}, ONNX Runtime {ort.__version__}")
    print(costs)


if __name__ == "__main__":
    main()
