"""`espalier export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from espalier.commands.cuts import Cuts, MaxSegments, cut_options
from espalier.console import console, progress_bars


def export(
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", metavar="NAME=FILE", help="A task: a whole ONNX model or a task checkpoint. Repeat it for each task."
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="FILE_OR_NAME",
            help="The network that the tasks were tuned from: an ONNX model, a backbone file, or a timm/torchvision name. "
            "Needed for checkpoints; without it, what the tasks have in common becomes the trunk.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="REPO", help="The model repository to write.")] = Path("model_repository/default"),
    preprocess: Annotated[
        str,
        typer.Option(
            metavar="in-graph|none",
            help="in-graph: clients send uint8 NHWC images, normalised inside the trunk. none: float32 NCHW, normalised by the client.",
        ),
    ] = "in-graph",
    max_batch_rows: Annotated[int, typer.Option(min=1, help="The most rows that one run of a model takes.")] = 64,
    cuts: Cuts = "cheap",
    max_segments: MaxSegments = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a repository that is there.")] = False,
) -> None:
    """Find what the tasks share and write one frozen trunk and their branches as a Triton model repository.

    [dim]espalier export --backbone resnet50.a1_in1k --task flowers=flowers.safetensors --task pets=pets.safetensors --out repo[/]
    """
    if preprocess not in ("in-graph", "none"):
        raise typer.BadParameter(f"must be in-graph or none, not {preprocess!r}.", param_hint="--preprocess")
    files, where = parse_tasks(task or []), cut_options(cuts, max_segments)

    from espalier.tree import repository_tree
    from exporter.export import ExportOptions, export_repository
    from exporter.sources import open_sources

    with progress_bars() as report:
        sources = open_sources(backbone, files, "in-graph" if preprocess == "in-graph" else "none")
        result = export_repository(sources, ExportOptions(out, max_batch_rows, force, cuts=where), report)
    console.print(repository_tree(result.repository))
    for name, remark in result.remarks.items():
        console.print(f"[yellow]{escape(name)}[/] {escape(remark)}")
    worst = max(result.parity_errors.values())
    console.print(f"Composed segments equal the whole networks (largest difference {worst:.1e} of the outputs' spread).")
    console.print(f"Wrote {escape(str(out))}. Serve it with: espalier serve {escape(str(out))}", soft_wrap=True)


def parse_tasks(pairs: list[str]) -> dict[str, Path]:
    """Return NAME=FILE pairs as a mapping. Raises typer.BadParameter for a pair of another form or a repeated name."""
    files: dict[str, Path] = {}
    for pair in pairs:
        name, separator, file = pair.partition("=")
        if not separator or not name or not file:
            raise typer.BadParameter(f"{pair!r} is not of the form NAME=FILE.", param_hint="--task")
        if name in files:
            raise typer.BadParameter(f"the name {name!r} is given twice.", param_hint="--task")
        files[name] = Path(file)
    return files
