"""Runs benchmarks one after another; each result is kept and shown before the next one begins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from benchmarks.framework.benchmark import Benchmark
from benchmarks.framework.options import Options
from benchmarks.framework.record import Record, run_benchmark
from espalier.bench.files import tables_file, write_record
from espalier.bench.tables import show_table
from espalier.console import console, errors


def run_all(benchmarks: Sequence[Benchmark], options: Options, out: Path) -> bool:
    """Run `benchmarks` and keep their results in the folder `out`; return whether all numbers can be used.

    One among several that fails does not keep the others from running; one alone raises what it raises.
    """
    several = len(benchmarks) > 1
    records = [_run(benchmark, options, out, keep_going=several) for benchmark in benchmarks]
    if several:
        done = ", ".join(f"{record.benchmark} {record.seconds:,.0f} s" for record in records if record)
        console.print(f"Took: {done or 'nothing was measured'}.", soft_wrap=True, highlight=False)
    return all(record is not None and not record.result.failed for record in records)


def _run(benchmark: Benchmark, options: Options, out: Path, *, keep_going: bool) -> Record | None:
    try:
        record = run_benchmark(benchmark, options)
        _show(record)
        write_record(record, out)
    except Exception as error:  # whatever a network, a server or a library does
        if not keep_going:
            raise
        errors.print(f"[bold red]{benchmark.name} failed:[/] {escape(str(error) or type(error).__name__)}", soft_wrap=True)
        return None
    _show_place(record, out)
    return record


def _show(record: Record) -> None:
    """Print the headline and the main table: all of them would scroll the ones before away."""
    first = record.result.tables[0]
    console.print(f"\n[bold]{record.benchmark}[/]: {escape(record.result.headline)}", soft_wrap=True, highlight=False)
    show_table(first, console)
    for sentence in record.result.failed:
        errors.print(f"[bold red]Not to be used:[/] {escape(sentence)}", soft_wrap=True)


def _show_place(record: Record, out: Path) -> None:
    more = ", ".join(table.title for table in record.result.tables[1:])
    others = f", and more: {more}" if more else ""
    console.print(f"All of it is in {tables_file(record, out)}{others}.", soft_wrap=True, markup=False, highlight=False)
