"""`espalier inspect`."""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espalier.commands.options.reports import describe_copied, describe_rows, describe_stored, describe_texts, print_not_shared
from espalier.console import console, print_data

if TYPE_CHECKING:
    from contract.repository import Repository, Segment, Task
    from contract.repository.files import PlainFiles


class _PlotBy(StrEnum):
    """What the width of a segment in a plot stands for."""

    macs = "macs"
    weights = "weights"


def inspect(
    repo: Annotated[
        Path, typer.Argument(metavar="REPO", help="A model repository that `espalier export` wrote, or Triton's of ONNX models.")
    ],
    plots: Annotated[
        list[Path] | None,
        typer.Option("--plot", metavar="FILE", help="Draw the tree, its width being cost, as FILE.svg or FILE.png; repeatable."),
    ] = None,
    plot_by: Annotated[_PlotBy, typer.Option(help="The cost that width stands for in a plot.")] = _PlotBy.macs,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """Show a repository: the tree of trunk and branches, each segment's cost, why it is cut, and what sharing saves."""
    from contract.repository.read import RepositoryReader
    from contract.repository.write import recover
    from espalier.figures.files import check_plot_file, write_plot
    from espalier.tables.tree import cuts_table, other_models, repository_tree, savings_table, segments_table

    for plot in plots or ():
        check_plot_file(plot)
    recover(repo)
    everything = RepositoryReader(repo, _read_plain).read()
    repository = everything.exported
    if plots and not repository.tasks:
        raise typer.BadParameter(
            f"{repo} holds nothing that espalier has exported, so there is no tree to draw.", param_hint="--plot"
        )
    for plot in plots or ():
        write_plot(repository, plot, plot_by.value)
    if as_json:
        print_data(_as_data(everything))
        return
    for line in other_models(everything):
        console.print(line, soft_wrap=True)
    if not repository.tasks:
        return
    console.print(repository_tree(repository))
    console.print(segments_table(repository))
    cuts = cuts_table(repository)
    if cuts.row_count:
        console.print(cuts)
    console.print(savings_table(repository))
    print_not_shared(repository.not_shared)
    stored = [f"Stored once: {line}" for line in describe_stored(repository)] + describe_copied(repository)
    for line in [*stored, *describe_rows(repository), *describe_texts(repository.tasks.values())]:
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    for plot in plots or ():
        console.print(f"Wrote {plot}.", soft_wrap=True, markup=False, highlight=False)


def _read_plain(files: PlainFiles) -> tuple[Segment, Task]:
    """Read a model that espalier did not write: the first needs ONNX Runtime, and most repositories have none."""
    from serving.engines.onnxruntime.plain import read_plain

    return read_plain(files)


def _as_data(everything: Repository) -> dict[str, Any]:
    repository = everything.exported
    others = {name: dataclasses.asdict(task) for name, task in everything.tasks.items() if task.plain is not None}
    return (_exported(repository) if repository.tasks else {}) | {"plain": others, "unserved": dict(everything.unserved)}


def _exported(repository: Repository) -> dict[str, Any]:
    from contract.costs import separate_cost, shared_cost
    from contract.weight_files import bytes_stored_once
    from espalier.figures.repository.flow import compare_costs

    names = list(repository.tasks)
    return {
        "segments": {name: dataclasses.asdict(segment) for name, segment in repository.segments.items()},
        "tasks": {name: dataclasses.asdict(task) for name, task in repository.tasks.items()},
        "cuts_left_out": list(repository.cuts_left_out),
        "not_shared": [dataclasses.asdict(one) for one in repository.not_shared],
        "bytes_stored_once": bytes_stored_once(repository),
        "shared": dataclasses.asdict(shared_cost(repository, names)),
        "separate": dataclasses.asdict(separate_cost(repository, names)),
        "mean_costs": [
            {"shared": dataclasses.asdict(shared), "separate": dataclasses.asdict(separate)}
            for shared, separate in compare_costs(repository)
        ],
    }
