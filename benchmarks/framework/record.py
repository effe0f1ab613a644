"""A result with all that it takes to judge it: when, on what, with which versions, options and commit. Kept as JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.framework.benchmark import Benchmark
from benchmarks.framework.errors import NotARecord
from benchmarks.framework.options import Options
from benchmarks.framework.result import Result
from benchmarks.harness.machine import machine_facts, source_commit, versions

_FORMAT = "espalier-benchmark/1"


@dataclass(frozen=True)
class Record:
    """seconds: that the benchmark took. load: the machine's load average before and after. commit: "" where there is no git."""

    benchmark: str
    about: str
    options: Mapping[str, Any]
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    commit: str
    time: str
    seconds: float
    load: tuple[float, float]
    result: Result

    def to_json(self) -> str:
        """Return it as JSON text."""
        data = {name: value for name, value in vars(self).items() if name != "result"}
        return json.dumps({"format": _FORMAT, **data, "result": self.result.to_data()}, indent=1) + "\n"


def run_benchmark(benchmark: Benchmark, options: Options) -> Record:
    """Run it. Raises what it raises."""
    run = benchmark.load()
    at, started, load = datetime.now(UTC), time.perf_counter(), os.getloadavg()[0]
    result = run(options)
    return Record(
        benchmark=benchmark.name,
        about=benchmark.about,
        options={
            "scale": str(options.scale),
            "precision": options.precision,
            "threads": options.cores,
            "only": list(options.only),
            "runs": options.runs,
        },
        machine=machine_facts(),
        versions=versions(),
        commit=source_commit(),
        time=at.isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - started, 1),
        load=(round(load, 2), round(os.getloadavg()[0], 2)),
        result=result,
    )


def read_record(path: Path) -> Record:
    """Return what was written to `path`. Raises NotARecord."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != _FORMAT:
            raise NotARecord(path)
        return Record(**{**data, "load": tuple(data["load"]), "result": Result.from_data(data["result"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotARecord(path) from error
