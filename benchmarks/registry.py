"""The benchmarks by name. To add one: a module with `run(options) -> Result`, and a line here."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.framework.benchmark import Benchmark
from benchmarks.framework.errors import OnlyInFp32, UnknownBenchmark
from benchmarks.framework.options import FP32

# In the order of `espalier bench all` and of the report.
BENCHMARKS = (
    Benchmark(
        "flops", "What sharing saves on paper: MACs, weights and activations for 1 to 32 tasks.", "benchmarks.flops.benchmark"
    ),
    Benchmark(
        "latency",
        "One request for 1 to 16 tasks: shared trunk, separate networks, torch.",
        "benchmarks.latency.benchmark",
        precise=True,
        chooses=True,
        counts=True,
    ),
    Benchmark(
        "merge",
        "Frozen suffixes on one stacked batch, tuned blocks as grouped.",
        "benchmarks.merge.benchmark",
        chooses=True,
        counts=True,
    ),
    Benchmark("memory", "Resident memory and disk for 1 to 32 tasks.", "benchmarks.memory.benchmark"),
    Benchmark(
        "families",
        "Three decoders and four classifiers, and six text classifiers: compute, latency, memory.",
        "benchmarks.families.benchmark",
        chooses=True,
        counts=True,
    ),
    Benchmark(
        "overhead", "What the server adds to its engine, per request and at most per second.", "benchmarks.overhead.benchmark"
    ),
    Benchmark(
        "load", "A server under load: percentiles, throughput, the knee, MLPerf.", "benchmarks.load.benchmark", chooses=True
    ),
    Benchmark("deploy", "The other tasks' latency while one comes and goes.", "benchmarks.deploy.benchmark"),
    Benchmark(
        "peers",
        "The same tasks on FastAPI, LitServe, BentoML, MLServer, Ray Serve and Triton.",
        "benchmarks.peers.benchmark",
        chooses=True,
        counts=True,
    ),
)


def find_benchmarks(name: str) -> tuple[Benchmark, ...]:
    """Return the benchmark called `name`, or every one for "all". Raises UnknownBenchmark."""
    found = tuple(benchmark for benchmark in BENCHMARKS if name in (benchmark.name, "all"))
    if not found:
        raise UnknownBenchmark(name, [benchmark.name for benchmark in BENCHMARKS])
    return found


def check_precisions(benchmarks: Iterable[Benchmark], precisions: Iterable[str]) -> None:
    """Raise OnlyInFp32 where one of `benchmarks` cannot measure one of `precisions`."""
    plain = [benchmark.name for benchmark in benchmarks if not benchmark.precise]
    if plain and set(precisions) != {FP32}:
        raise OnlyInFp32(plain, [benchmark.name for benchmark in BENCHMARKS if benchmark.precise])
