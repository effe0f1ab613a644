"""The command of the study: runs what is missing within a budget, says what that takes, or makes the tables from what is there.

    python -m benchmarks.studies.claims --plan
    python -m benchmarks.studies.claims --out FOLDER --budget-hours 12
    python -m benchmarks.studies.claims --out FOLDER --tables

The second one starts a process on each core; stopped in whatever way, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.studies.claims.ledgers import Ledgers
from benchmarks.studies.claims.plan import Planned, make_plan
from benchmarks.studies.claims.tables.document import make_document
from benchmarks.studies.claims.tables.progress import plan_table
from benchmarks.studies.claims.tables.source import Source
from benchmarks.studies.claims.unit import Settings
from contract.errors import EspalierError
from contract.system import available_cores

LEDGERS = Path(__file__).parent / "ledgers"


def main(arguments: Sequence[str] | None = None, settings: Settings | None = None) -> int:
    """Do what the options say; return the exit status."""
    given = _parser().parse_args(arguments)
    given.arguments = sys.argv[1:] if arguments is None else list(arguments)
    settings = settings or Settings()
    plan = [one for one in make_plan(settings) if given.only is None or given.only in (one.section, one.unit.kind, one.unit.task)]
    if not plan:
        sections = ", ".join(dict.fromkeys(one.section for one in make_plan(settings)))
        print(
            f"Nothing in the plan is called {given.only!r}; there are sections ({sections}), kinds of units and tasks.",
            file=sys.stderr,
        )
        return 2
    out = given.out
    if out is None and not given.plan:
        print("Give --out FOLDER: tables, pictures and half-done work go there.", file=sys.stderr)
        return 2
    try:
        ledgers = Ledgers(given.ledgers, settings, None if out is None else out / "work")
        return _show_plan(ledgers, plan, given.cores) if given.plan else _work(given, ledgers, plan)
    except EspalierError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.claims", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for tables, pictures, and work that is half done")
    parser.add_argument("--ledgers", type=Path, metavar="FOLDER", default=LEDGERS, help="of entries; default: those of the study")
    parser.add_argument("--budget-hours", type=float, metavar="H", help="of all cores, over all runs that the ledgers hold")
    parser.add_argument("--only", metavar="NAME", help="a section of the plan, a kind of units, or a task")
    parser.add_argument(
        "--plan", action="store_true", help="say what there is to do and what it is likely to take, and do nothing"
    )
    parser.add_argument("--tables", action="store_true", help="make tables and pictures from the ledgers, and train nothing")
    parser.add_argument("--cores", type=int, default=available_cores(), help="processes side by side, each on a core of its own")
    parser.add_argument("--data-folder", type=Path, help="of pictures; default: the user's cache folder")
    parser.add_argument("--busy", action="store_true", help="mark the entries: the machine does other things meanwhile")
    parser.add_argument("--part", type=int, help=argparse.SUPPRESS)
    return parser


def _show_plan(ledgers: Ledgers, plan: Sequence[Planned], cores: int) -> int:
    print(plan_table(_source(ledgers), plan, cores))
    return 0


def _work(given: argparse.Namespace, ledgers: Ledgers, plan: Sequence[Planned]) -> int:
    given.out.mkdir(parents=True, exist_ok=True)
    status = 0
    if not given.tables:
        alone = given.cores == 1 or given.part is not None
        status = _run_here(given, ledgers, plan) if alone else _run_on_cores(given)
    if given.part is None:
        _write_tables(given, ledgers)
    return status


def _run_on_cores(given: argparse.Namespace) -> int:
    """Have one process for each core do the same; return the worst exit status. Ctrl-C reaches all of them."""
    command = [sys.executable, "-m", "benchmarks.studies.claims", *given.arguments]
    parts = [subprocess.Popen([*command, "--part", str(part)]) for part in range(given.cores)]
    return max(part.wait() for part in parts)


def _run_here(given: argparse.Namespace, ledgers: Ledgers, plan: Sequence[Planned]) -> int:
    from benchmarks.studies.claims.bench import Bench
    from benchmarks.studies.claims.run import Budget, run

    _take_core(given.part or 0)
    budget = Budget(given.budget_hours, given.cores, given.busy)
    outcome = run(Bench(ledgers, given.data_folder), plan, budget, lambda sentence: print(sentence, flush=True))
    for sentence in outcome.failed.values():
        print(sentence, file=sys.stderr)
    return 1 if outcome.failed else 0


def _take_core(part: int) -> None:
    """Keep this process to one core, and torch to one thread: so a training gives the same on machines "
    "of many cores and of few."""
    import torch

    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[part % len(cores)]})
    torch.set_num_threads(1)


def _write_tables(given: argparse.Namespace, ledgers: Ledgers) -> None:
    source = _source(ledgers)
    document = given.out / "claims.md"
    document.write_text(make_document(source, make_plan(ledgers.settings), given.cores), encoding="utf-8")
    written = [document]
    try:
        from benchmarks.studies.claims.plots import make_plots
    except ImportError:
        print("No pictures: matplotlib is not there (the extra plot).", file=sys.stderr)
    else:
        for name, picture in make_plots(source):
            (given.out / name).write_bytes(picture)
            written.append(given.out / name)
    print("Written: " + ", ".join(map(str, written)))


def _source(ledgers: Ledgers) -> Source:
    settings = ledgers.settings
    return Source([entry for key, entry in ledgers.read().items() if entry.unit.key(settings) == key], settings)


if __name__ == "__main__":
    sys.exit(main())
