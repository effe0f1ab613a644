"""`espalier tune pretrain`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from espalier.commands.options.training import Augmentation, BatchSizeOption, Learning, LrOption, Machine, make_fit_options
from espalier.commands.options.tune import AllImages, DataOption, ForceOption, check_writable
from espalier.console import console, loading, progress_bars


@dataclass(frozen=True)
class _Images(AllImages):
    corruption: str | None = field(default=None, init=False)


@dataclass(frozen=True)
class _Learning(Learning):
    lr: LrOption = 2e-3
    batch_size: BatchSizeOption = 32


def pretrain(
    *,
    network: Annotated[str, typer.Option(metavar="NAME", help="A timm name (resnet18), or torchvision/NAME.")],
    data: DataOption,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The backbone file to write (.safetensors).")],
    images: _Images,
    image_size: Annotated[int, typer.Option(min=8, help="Pixels of the network's input.")] = 64,
    channels: Annotated[
        str | None, typer.Option(metavar="NUMBERS", help="Widths of a ResNet's stages, separated by commas: 24,48,96,192.")
    ] = None,
    learning: _Learning,
    force: ForceOption = False,
) -> None:
    """Train a small network from nothing, as a backbone to try things on where no published weights are at hand.

    [dim]espalier tune pretrain --network resnet18 --channels 24,48,96,192 --data glyphs:letters --out letters.safetensors[/]
    """
    with loading():
        from contract.preprocessing import Preprocessing
        from tuning.network.backbone import save_backbone
        from tuning.training.fit import evaluate
        from tuning.training.fit import pretrain as run

    check_writable(out, force=force)
    how = Preprocessing(image_size, image_size, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")
    task_data = images.open(data, how)
    options = make_fit_options(learning, Augmentation(), Machine())
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
