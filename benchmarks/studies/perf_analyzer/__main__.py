"""Runs perf_analyzer over a repository: `python -m benchmarks.studies.perf_analyzer REPO`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness.served import ServerProcess, served
from benchmarks.studies.perf_analyzer.program import PerfAnalyzerUnavailable, fetch
from benchmarks.studies.perf_analyzer.sweep import WAYS, models_of, sweep, table
from contract.repository import read_repository
from serving.local_triton.local import local_triton


def main() -> None:
    """Serve REPO and let perf_analyzer ask a task, all tasks and a segment in every way; exit code 1 where one did not run through."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("repository", metavar="REPO", type=Path, help="a repository that `espalier export` wrote")
    parser.add_argument(
        "--engine", choices=("embedded", "triton"), default="embedded", help="triton: a local one (docs/guides/triton.md)"
    )
    parser.add_argument("--clients", type=int, default=4, help="up to so many at once")
    arguments = parser.parse_args()
    try:
        program = fetch()
    except PerfAnalyzerUnavailable as error:
        sys.exit(str(error))
    models, rows = models_of(read_repository(arguments.repository)), []
    with _server(arguments.repository, arguments.engine) as server:
        for row in sweep(program, server.http_address, server.grpc_address, models, arguments.clients):
            rows.append(row)
            print(f"{len(rows)} of {len(models) * len(WAYS)}: {row.model}, {row.way}: {row.failure or 'ran through'}", flush=True)
    print(table(rows))
    sys.exit(any(row.failure for row in rows))


@contextmanager
def _server(repository: Path, engine: str) -> Iterator[ServerProcess]:
    if engine == "embedded":
        with served(repository, "--shared-memory") as server:
            yield server
        return
    with (
        local_triton(repository) as triton,
        served(repository, "--shared-memory", "--engine", "triton", "--triton-url", triton.grpc_url) as server,
    ):
        yield server


if __name__ == "__main__":
    main()
