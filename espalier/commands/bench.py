"""`espalier bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from espalier.console import console, loading, say


def bench(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A benchmark, all, or list, which says what there is.")],
    quick: Annotated[bool, typer.Option("--quick", help="Fewer runs and sizes, for a first impression in minutes.")] = False,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="For JSON, tables and plots; report.html shows all results there.")
    ] = Path("espalier-bench"),
    precision: Annotated[
        str, typer.Option(metavar="LIST", help="fp32, int8, bf16, with commas between them; others than fp32 for latency alone.")
    ] = "fp32",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of every variant; by default as many as this process has cores.")
    ] = None,
    scratch: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            writable=True,
            metavar="FOLDER",
            help="Where networks are made, about 12 GB, with --quick 3; by default in the system's folder for temporary files.",
        ),
    ] = None,
    only: Annotated[
        str,
        typer.Option(
            metavar="WORD,...",
            help="Only the peers, for latency the networks, for load the wires, for merge the measurements that these name.",
        ),
    ] = "",
    runs: Annotated[
        int | None,
        typer.Option(min=1, help="Counted runs of each variant of latency, merge or peers; 30 or more are for publication."),
    ] = None,
) -> None:
    """Measure what sharing a trunk gains, on this machine. What is measured, and by which rules: docs/benchmarks.md.

    [dim]espalier bench all --quick[/]
    """
    import tempfile

    with loading():
        from benchmarks.framework.errors import NothingToChoose, RunsAreFixed
        from benchmarks.framework.options import Options, Scale
        from benchmarks.registry import BENCHMARKS, check_precisions, find_benchmarks
        from espalier.bench.files import REPORT, can_draw, prepare
        from espalier.bench.run import run_all

    if name == "list":
        for benchmark in BENCHMARKS:
            console.print(f"[bold]{benchmark.name:12}[/]{escape(benchmark.about)}", soft_wrap=True, highlight=False)
        return
    chosen = find_benchmarks(name)
    check_precisions(chosen, Options(out, precision=precision).precisions)
    words = tuple(word.strip() for word in only.split(",") if word.strip())
    if words and not (len(chosen) == 1 and chosen[0].chooses):
        raise NothingToChoose(name, [benchmark.name for benchmark in BENCHMARKS if benchmark.chooses])
    if runs is not None and not (len(chosen) == 1 and chosen[0].counts):
        raise RunsAreFixed(name, [benchmark.name for benchmark in BENCHMARKS if benchmark.counts])
    prepare(out)
    with tempfile.TemporaryDirectory(prefix="espalier-bench-", dir=scratch) as folder:
        options = Options(Path(folder), Scale.quick if quick else Scale.full, precision, threads, say, words, runs)
        good = run_all(chosen, options, out)
    if can_draw():
        console.print(f"Wrote {out / REPORT}.", soft_wrap=True, markup=False, highlight=False)
    else:
        say("Plots and report are left out, for matplotlib is not installed: pip install 'espalier[plot]'.")
    raise typer.Exit(0 if good else 1)
