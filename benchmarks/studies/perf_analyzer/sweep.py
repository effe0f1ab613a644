"""What is run: each way in which perf_analyzer can ask, for a task, all tasks at once and a segment, with 1 to 4 clients."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.studies.perf_analyzer.program import PerfAnalyzer, PerfAnalyzerFailed
from contract.repository import ALL_TASKS, Repository

WAYS: Mapping[str, Sequence[str]] = {
    "HTTP": (),
    "HTTP, async": ("--async",),
    "HTTP, JSON": ("--input-tensor-format", "json", "--output-tensor-format", "json"),
    "HTTP, shared memory": ("--shared-memory", "system"),
    "HTTP, 3 rows": ("-b", "3"),
    "gRPC": ("-i", "grpc"),
    "gRPC, async": ("-i", "grpc", "--async"),
    "gRPC, streaming": ("-i", "grpc", "--async", "--streaming"),
    "gRPC, shared memory": ("-i", "grpc", "--shared-memory", "system"),
    "gRPC, streaming, shared memory": ("-i", "grpc", "--async", "--streaming", "--shared-memory", "system"),
}
# Short windows, and whatever they measure is taken: what is asked here is whether it runs through.
_WINDOWS = ("--measurement-interval", "400", "--max-trials", "4", "--stability-percentage", "999")


@dataclass(frozen=True)
class _SweepRow:
    """What came of one way to ask a model. per_second, p50_ms: by clients. failure: a sentence, where it did not run through."""

    model: str
    way: str
    per_second: Mapping[int, float]
    p50_ms: Mapping[int, float]
    failure: str = ""


def models_of(repository: Repository) -> list[str]:
    """Return a task, all of them, and the segment that takes their input: what is asked."""
    task = min(repository.tasks)
    return [
        task,
        *([ALL_TASKS] if len({one.inputs for one in repository.tasks.values()}) == 1 else []),
        repository.tasks[task].steps[0].segment,
    ]


def sweep(program: PerfAnalyzer, http: str, grpc: str, models: Iterable[str], most_clients: int = 4) -> Iterator[_SweepRow]:
    """Yield a row for each of `models` and each of WAYS to ask it at the addresses (host:port), with 1 to `most_clients` clients."""
    for model in models:
        for way, options in WAYS.items():
            address = grpc if "grpc" in options else http
            yield _measure(program, model, way, ["-u", address, "--concurrency-range", f"1:{most_clients}", *_WINDOWS, *options])


def table(rows: Sequence[_SweepRow]) -> str:
    """Return `rows` as a Markdown table."""
    lines = ["| model | asked by | inferences per second, by clients | median ms, by clients |", "|---|---|---|---|"]
    for row in rows:
        measured = [_joined(row.per_second, ".0f"), _joined(row.p50_ms, ".1f")]
        lines.append(f"| {row.model} | {row.way} | {row.failure or ' | '.join(measured)}{' |' if row.failure else ''} |")
    return "\n".join(lines)


def _measure(program: PerfAnalyzer, model: str, way: str, arguments: Sequence[str]) -> _SweepRow:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.csv"
        try:
            program.run("-m", model, *arguments, "-f", str(report))
        except PerfAnalyzerFailed as error:
            return _SweepRow(model, way, {}, {}, str(error))
        with report.open() as file:
            lines = sorted(csv.DictReader(file), key=lambda line: int(line["Concurrency"]))  # it sorts by throughput
    per_second = {int(line["Concurrency"]): float(line["Inferences/Second"]) for line in lines}
    return _SweepRow(model, way, per_second, {int(line["Concurrency"]): float(line["p50 latency"]) / 1000 for line in lines})


def _joined(numbers: Mapping[int, float], how: str) -> str:
    return " / ".join(format(number, how) for number in numbers.values())
