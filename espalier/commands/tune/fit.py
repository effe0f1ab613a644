"""`espalier tune fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from espalier.commands.tune.options import (
    BackboneOption,
    CheckpointOption,
    DataOption,
    ImageSizeOption,
    check_writable,
    open_backbone,
    open_data,
    parse_subset,
)
from espalier.console import console, progress_bars


def fit(
    backbone: BackboneOption,
    data: DataOption,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The task checkpoint to write (.safetensors).")],
    blocks: Annotated[
        str,
        typer.Option(
            metavar="NAMES|none|all", help="Blocks to tune, separated by commas; none: only a new head; all: every block."
        ),
    ] = "none",
    all_weights: Annotated[bool, typer.Option("--all-weights", help="With --blocks all: the stem and outer norms, too.")] = False,
    checkpoint: CheckpointOption = None,
    image_size: ImageSizeOption = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training data.")] = 10,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate (AdamW, cosine); default 1e-3, 1e-2 for a linear probe.")
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Weight decay.")] = 1e-2,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step.")] = 64,
    seed: Annotated[int, typer.Option(help="Fixes the head's first weights and the order of the data.")] = 0,
) -> None:
    """Fine-tune some blocks and a new head on a task, and write them as a task checkpoint.

    [dim]espalier tune fit --backbone resnet50.a1_in1k --data flowers/ --blocks layer4.2 --out flowers.safetensors[/]
    """
    from tuning.checkpoint import save_task
    from tuning.fit import FitOptions, fit

    check_writable(out)
    loaded = open_backbone(backbone, checkpoint, image_size)
    task_data = open_data(data, loaded.spec.preprocessing)
    options = FitOptions(epochs=epochs, lr=lr, weight_decay=weight_decay, batch_size=batch_size, seed=seed)
    with progress_bars() as report:
        result = fit(
            loaded,
            task_data,
            parse_subset(blocks),
            options,
            all_weights=all_weights,
            on_epoch=lambda done, total: report("Tuning", done, total),
        )
    save_task(result, out)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in result.scores.items())
    console.print(f"Wrote {escape(str(out))}: {scores}.", soft_wrap=True)
