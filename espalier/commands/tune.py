"""`espalier tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from espalier.console import console, progress_bars

if TYPE_CHECKING:
    from serving.preprocessing import Preprocessing
    from tuning.backbone import Backbone
    from tuning.data import TaskData
    from tuning.fit import Subset

app = typer.Typer(help="Tune tasks: a few blocks of a backbone per task, the rest stays bit-identical.", no_args_is_help=True)

BackboneOption = Annotated[
    str,
    typer.Option(metavar="NAME_OR_FILE", help="A timm name (resnet50.a1_in1k), torchvision/NAME, or a backbone file of ours."),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Weights of the backbone (.safetensors, or .pth without pickled code) instead of the published."
    ),
]
ImageSizeOption = Annotated[int | None, typer.Option(min=1, help="Pixels of the network's input, if not the backbone's own.")]


@app.command()
def blocks(backbone: BackboneOption, checkpoint: CheckpointOption = None) -> None:
    """List the blocks of a backbone, as `tune fit --blocks` takes them."""
    table = Table("block", "parameters")
    loaded = _load_backbone(backbone, checkpoint, None)
    for name in loaded.blocks:
        parameters = sum(parameter.numel() for parameter in loaded.network.get_submodule(name).parameters())
        table.add_row(escape(name), f"{parameters:,}")
    console.print(table)


@app.command()
def fit(
    backbone: BackboneOption,
    data: Annotated[
        str,
        typer.Option(
            metavar="FOLDER|digits:TASK",
            help="Images in one folder per class (optionally under train/ and val/ or test/), or a task on scikit-learn's digits, "
            "which needs no download: digits:parity, digits:inverted, ...",
        ),
    ],
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

    _check_writable(out)
    loaded = _load_backbone(backbone, checkpoint, image_size)
    task_data = _load_data(data, loaded.spec.preprocessing)
    if task_data.skipped:
        console.print(
            f"[yellow]Skipped {len(task_data.skipped)} unreadable images:[/] {escape(', '.join(task_data.skipped[:5]))}"
        )
    options = FitOptions(epochs=epochs, lr=lr, weight_decay=weight_decay, batch_size=batch_size, seed=seed)
    with progress_bars() as report:
        result = fit(
            loaded,
            task_data,
            _subset(blocks),
            options,
            all_weights=all_weights,
            on_epoch=lambda done, total: report("Tuning", done, total),
        )
    save_task(result, out)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in result.scores.items())
    console.print(f"Wrote {escape(str(out))}: {scores}.", soft_wrap=True)


def _load_backbone(name: str, checkpoint: Path | None, image_size: int | None) -> Backbone:
    from tuning.backbone import load_backbone

    with console.status("Loading the backbone"):
        return load_backbone(name, checkpoint, image_size=image_size)


def _load_data(source: str, preprocessing: Preprocessing) -> TaskData:
    from tuning.data import folder_task
    from tuning.digits import digit_task

    if source.startswith("digits:"):
        return digit_task(source.removeprefix("digits:"), preprocessing)
    return folder_task(Path(source), preprocessing)


def _subset(blocks: str) -> Subset:
    if blocks == "none" or blocks == "all":
        return blocks
    return [name.strip() for name in blocks.split(",") if name.strip()]


def _check_writable(out: Path) -> None:
    """Refuse before the training and not after it."""
    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"{out} must end in .safetensors.", param_hint="--out")
    if not out.parent.is_dir():
        raise typer.BadParameter(f"the folder {out.parent} does not exist.", param_hint="--out")
