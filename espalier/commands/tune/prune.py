"""`espalier tune prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from contract.units import human_bytes, human_macs, percent
from espalier.commands.options.training import Augmentation, Learning, Machine, make_fit_options
from espalier.commands.options.tune import AllImages, BackboneOption, DataOption, ForceOption, Weights, check_writable
from espalier.console import console, loading, progress_bars


def prune(
    *,
    backbone: BackboneOption,
    task: Annotated[Path, typer.Option(metavar="FILE", help="The task checkpoint to prune, as `tune fit` wrote it.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The task checkpoint to write (.safetensors).")],
    ratio: Annotated[float, typer.Option(help="Share of the channels inside the tuned blocks to cut.")] = 0.5,
    images: AllImages,
    weights: Weights,
    learning: Learning,
    augmentation: Augmentation,
    machine: Machine,
    force: ForceOption = False,
) -> None:
    """Cut channels inside the tuned blocks of a task, and tune what is left of them, and the head, again.

    The frozen part stays as it is: the pruned task shares it with the others, and its own part becomes smaller.

    [dim]espalier tune prune --backbone resnet50.a1_in1k --task flowers.safetensors --data flowers/ --out flowers-small.safetensors[/]
    """
    with loading():
        from tuning.network.checkpoint import load_task, save_task
        from tuning.pruning.prune import prune_task

    check_writable(out, force=force)
    options = make_fit_options(learning, augmentation, machine)
    tuned = load_task(task)
    loaded = weights.open(backbone, like=tuned.backbone.preprocessing)
    task_data = images.open(data, loaded.spec.preprocessing)
    with progress_bars() as report:
        result = prune_task(
            loaded, tuned, task_data, options, ratio, on_epoch=lambda done, total: report("Tuning what is left", done, total)
        )
    save_task(result.checkpoint, out)
    table = Table("", "test accuracy, %", "MACs after the fork", "bytes of its own", box=SIMPLE_HEAD, pad_edge=False)
    for name, found in (("before", result.before), ("cut", result.untrained), ("cut and tuned again", result.after)):
        table.add_row(name, percent(found.test_accuracy), human_macs(found.macs), human_bytes(found.weight_bytes))
    console.print(table)
    cut = ", ".join(f"{cut.layer} {cut.channels} to {cut.kept}" for cut in result.cuts)
    console.print(f"Wrote {escape(str(out))}; outputs of layers: {escape(cut)}.", soft_wrap=True)
