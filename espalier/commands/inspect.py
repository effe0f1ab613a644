"""`espalier inspect`."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espalier.console import console, print_data

if TYPE_CHECKING:
    from serving.repository import Repository


class PlotBy(StrEnum):
    """What the width of a segment in a plot stands for."""

    macs = "macs"
    weights = "weights"


def inspect(
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="A model repository that `espalier export` wrote.")],
    plots: Annotated[
        list[Path] | None,
        typer.Option("--plot", metavar="FILE", help="Draw the tree, its width being cost, as FILE.svg or FILE.png; repeatable."),
    ] = None,
    plot_by: Annotated[PlotBy, typer.Option(help="The cost that width stands for in a plot.")] = PlotBy.macs,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """Show a repository: the tree of trunk and branches, each segment's cost, why it is cut, and what sharing saves."""
    from espalier.plot.files import check_plot_file, write_plot
    from espalier.tree import cuts_table, repository_tree, savings_table, segments_table
    from exporter.aside import recover
    from serving.repository import read_repository

    for plot in plots or ():
        check_plot_file(plot)
    recover(repo)
    repository = read_repository(repo)
    for plot in plots or ():
        write_plot(repository, plot, plot_by.value)
    if as_json:
        print_data(_as_data(repository))
        return
    console.print(repository_tree(repository))
    console.print(segments_table(repository))
    cuts = cuts_table(repository)
    if cuts.row_count:
        console.print(cuts)
    console.print(savings_table(repository))
    for plot in plots or ():
        console.print(f"Wrote {plot}.", soft_wrap=True, markup=False, highlight=False)


def _as_data(repository: Repository) -> dict[str, Any]:
    from benchmarks.flops import separate_cost, shared_cost
    from espalier.flow import compare_costs

    names = list(repository.tasks)
    return {
        "segments": {name: dataclasses.asdict(segment) for name, segment in repository.segments.items()},
        "tasks": {name: dataclasses.asdict(task) for name, task in repository.tasks.items()},
        "cuts_left_out": list(repository.cuts_left_out),
        "shared": dataclasses.asdict(shared_cost(repository, names)),
        "separate": dataclasses.asdict(separate_cost(repository, names)),
        "mean_costs": [
            {"shared": dataclasses.asdict(shared), "separate": dataclasses.asdict(separate)}
            for shared, separate in compare_costs(repository)
        ],
    }
