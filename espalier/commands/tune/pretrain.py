"""`espalier tune pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from espalier.commands.tune.options import DataFolderOption, DataOption, DownloadOption, check_writable, open_data
from espalier.commands.tune.training_options import (
    BatchSizeOption,
    EpochsOption,
    LrOption,
    SeedOption,
    WeightDecayOption,
    make_fit_options,
)
from espalier.console import console, progress_bars


def pretrain(
    network: Annotated[str, typer.Option(metavar="NAME", help="A timm name (resnet18), or torchvision/NAME.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The backbone file to write (.safetensors).")],
    data_folder: DataFolderOption = None,
    download: DownloadOption = False,
    image_size: Annotated[int, typer.Option(min=8, help="Pixels of the network's input.")] = 64,
    channels: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="Widths of a ResNet's stages, separated by commas: 24,48,96,192.")
    ] = None,
    epochs: EpochsOption = 10,
    lr: LrOption = 2e-3,
    weight_decay: WeightDecayOption = 1e-2,
    batch_size: BatchSizeOption = 32,
    seed: SeedOption = 0,
) -> None:
    """Train a small network from nothing, as a backbone to try things on where no published weights are at hand.

    [dim]espalier tune pretrain --network resnet18 --channels 24,48,96,192 --data glyphs:letters --out letters.safetensors[/]
    """
    from serving.preprocessing import Preprocessing
    from tuning.backbone import save_backbone
    from tuning.fit import evaluate
    from tuning.fit import pretrain as run

    check_writable(out)
    how = Preprocessing(image_size, image_size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")
    task_data = open_data(data, how, folder=data_folder, download=download)
    options = make_fit_options(epochs=epochs, lr=lr, weight_decay=weight_decay, batch_size=batch_size, seed=seed)
    widths = {} if channels is None else {"channels": _numbers(channels)}
    with progress_bars() as report:
        backbone = run(
            network,
            task_data,
            how,
            options,
            network_options=widths,
            on_epoch=lambda done, total: report("Pretraining", done, total),
        )
    save_backbone(backbone, out)
    accuracy = evaluate(backbone.network, task_data.test, how)
    console.print(f"Wrote {escape(str(out))}: test accuracy {accuracy:.3f} on {escape(task_data.name)}.", soft_wrap=True)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} must be numbers, separated by commas.", param_hint="--channels") from error
