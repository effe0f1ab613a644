"""`espalier diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from espalier.commands.options.task_models import InputNames, Inputs, open_named
from espalier.console import console, loading, print_data


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="An ONNX model or a task checkpoint.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="What to compare it with.")],
    backbone: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The network that checkpoints were tuned on, as for `espalier export`."),
    ] = None,
    preprocess: Annotated[
        str, typer.Option(metavar="in-graph|none", help="As for `espalier export`, for checkpoints.")
    ] = "in-graph",
    input_names: InputNames = None,
    show_all: Annotated[bool, typer.Option("--all", help="List the equal blocks, too.")] = False,
    weights: Annotated[bool, typer.Option("--weights", help="List every weight of the blocks that differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for programs.")] = False,
) -> None:
    """Show which blocks differ between two networks, and by how much (relative norm of their weights, ||b - a|| / ||a||).

    Both may come from anywhere: blocks are compared by content, not by name. BatchNorm is folded into the convolutions of torch networks,
    so that the norms are of the folded weights.

    [dim]espalier diff --backbone resnet50.a1_in1k flowers.safetensors pets.safetensors[/]
    """
    inputs = Inputs(preprocess).options()

    with loading():
        from espalier.tables.diff import as_data, diff_table, summary
        from exporter.diff.diff import diff_models

    sources = open_named(backbone, {str(a): str(a), str(b): str(b)}, inputs, (), input_names or ())
    left, right = (sources.tasks[str(path)]() for path in (a, b))
    found = diff_models(str(a), left, str(b), right, sources.inputs)
    if as_json:
        print_data(as_data(found))
        return
    shown = found.blocks if show_all else found.differing
    if shown:
        console.print(diff_table(found, shown, weights))
    for remark in found.remarks:
        console.print(f"[yellow]{escape(remark)}[/]")
    console.print(escape(summary(found)))
