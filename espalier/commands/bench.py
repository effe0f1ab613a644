"""`espalier bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from espalier.commands.options.sizes import parse_named_sizes
from espalier.console import console, loading, say

if TYPE_CHECKING:
    from benchmarks.framework.benchmark import Benchmark


def bench(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|REPO", help="A benchmark, all, or list, which says what there is; or a model repository of your own."
        ),
    ],
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
            help="Only the peers, for latency the networks, for load the wires, for merge the measurements, for REPO the engines.",
        ),
    ] = "",
    runs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Counted runs of each variant of latency, merge, peers or REPO; 30 or more are for publication."
        ),
    ] = None,
    tasks: Annotated[
        str, typer.Option(metavar="TASK,...", help="Of REPO: the tasks; by default all, or 16 of them, with --quick 8.")
    ] = "",
    rows: Annotated[int, typer.Option(min=1, help="Of REPO: rows of each request.")] = 1,
    size: Annotated[
        str,
        typer.Option(
            "--size",
            "--length",
            metavar="[NAME=]N,...",
            help="Of REPO: its free sizes, such as 128 or height=64,width=64; by default those that it was exported with.",
        ),
    ] = "",
) -> None:
    """Measure what sharing a trunk gains, on this machine. What is measured, and by which rules: docs/measurements/benchmarks.md.

    [dim]espalier bench all --quick[/]
    [dim]espalier bench ./repo[/]
    """
    import tempfile

    with loading():
        from benchmarks.framework.options import Options, Scale
        from benchmarks.registry import BENCHMARKS
        from espalier.bench.files import REPORT, can_draw, prepare
        from espalier.bench.run import run_all

    if name == "list":
        for benchmark in BENCHMARKS:
            console.print(f"[bold]{benchmark.name:12}[/]{escape(benchmark.about)}", soft_wrap=True, highlight=False)
        console.print(f"[bold]{'REPO':12}[/]{_about_repositories()}", soft_wrap=True, highlight=False)
        return
    words = _words(only)
    if name not in {"all", *(benchmark.name for benchmark in BENCHMARKS)} and (Path(name).exists() or len(Path(name).parts) > 1):
        chosen: Sequence[Benchmark] = [_of_repository(Path(name), precision, _words(tasks), rows, size)]
    else:
        chosen = _by_name(name, Options(out, precision=precision).precisions, words, runs)
        if tasks or rows != 1 or size:
            raise typer.BadParameter("They go with a model repository.", param_hint="--tasks, --rows and --size")
    prepare(out)
    with tempfile.TemporaryDirectory(prefix="espalier-bench-", dir=scratch) as folder:
        options = Options(Path(folder), Scale.quick if quick else Scale.full, precision, threads, say, words, runs)
        good = run_all(chosen, options, out)
    if can_draw():
        console.print(f"Wrote {out / REPORT}.", soft_wrap=True, markup=False, highlight=False)
    else:
        say("Plots and report are left out, for matplotlib is not installed: pip install 'espalier[plot]'.")
    raise typer.Exit(0 if good else 1)


def _by_name(name: str, precisions: Sequence[str], words: Sequence[str], runs: int | None) -> Sequence[Benchmark]:
    """Return the benchmark called `name`, or all, if they can be told the rest."""
    from benchmarks.framework.errors import NothingToChoose, RunsAreFixed
    from benchmarks.registry import BENCHMARKS, check_precisions, find_benchmarks

    chosen = find_benchmarks(name)
    check_precisions(chosen, precisions)
    if words and not (len(chosen) == 1 and chosen[0].chooses):
        raise NothingToChoose(name, [benchmark.name for benchmark in BENCHMARKS if benchmark.chooses])
    if runs is not None and not (len(chosen) == 1 and chosen[0].counts):
        raise RunsAreFixed(name, [benchmark.name for benchmark in BENCHMARKS if benchmark.counts])
    return chosen


def _of_repository(path: Path, precision: str, tasks: Sequence[str], rows: int, size: str) -> Benchmark:
    """Return the benchmark of the repository at `path`, if it can be read: before a folder for results is made."""
    from benchmarks.repository.benchmark import read, repository_benchmark
    from benchmarks.repository.question import Question

    if precision != "fp32":
        raise typer.BadParameter(
            "A repository is measured in every precision that its segments and the engines have; leave it out.",
            param_hint="--precision",
        )
    question = Question(path, tuple(tasks), rows, parse_named_sizes(size, "--size"))
    read(path)
    return repository_benchmark(question)


def _about_repositories() -> str:
    from benchmarks.repository.question import ABOUT

    return ABOUT


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())
