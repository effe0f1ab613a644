"""Runs benchmarks one after another; each result is kept and shown before the next one begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from benchmarks.suite.options import Options
from benchmarks.suite.record import Record, run_benchmark
from benchmarks.suite.registry import Benchmark
from espalier.bench.files import write_record
from espalier.bench.tables import rich_table
from espalier.console import console, errors


def run_all(benchmarks: Sequence[Benchmark], options: Options, out: Path) -> bool:
    """Run `benchmarks` and keep their results in the folder `out`; return whether all numbers can be used.

    One among several that fails does not keep the others from running; one alone raises what it raises.
    """
    good = [_run(benchmark, options, out, keep_going=len(benchmarks) > 1) for benchmark in benchmarks]
    return all(good)


def _run(benchmark: Benchmark, options: Options, out: Path, *, keep_going: bool) -> bool:
    try:
        record = run_benchmark(benchmark, options)
    except Exception as error:  # whatever a network, a server or a library does
        if not keep_going:
            raise
        errors.print(f"[bold red]{benchmark.name} failed:[/] {escape(str(error) or type(error).__name__)}", soft_wrap=True)
        return False
    write_record(record, out)
    _show(record)
    return not record.result.failed


def _show(record: Record) -> None:
    for table in record.result.tables:
        console.print(rich_table(table))
    console.print(f"[bold]{escape(record.result.headline)}[/]", soft_wrap=True, highlight=False)
    for sentence in record.result.failed:
        errors.print(f"[bold red]Not to be used:[/] {escape(sentence)}", soft_wrap=True)
