"""What the commands of `espalier tune` have in common: options, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from espalier.console import console

if TYPE_CHECKING:
    from serving.preprocessing import Preprocessing
    from tuning.backbone import Backbone
    from tuning.data import TaskData
    from tuning.fit import Subset

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
DataOption = Annotated[
    str,
    typer.Option(
        metavar="FOLDER|digits:TASK",
        help="Images in one folder per class (optionally under train/ and val/ or test/), or a task on scikit-learn's digits, "
        "which needs no download: digits:parity, digits:inverted, ...",
    ),
]


def open_backbone(name: str, checkpoint: Path | None, image_size: int | None) -> Backbone:
    """Return the backbone that the options name."""
    from tuning.backbone import load_backbone

    with console.status("Loading the backbone"):
        return load_backbone(name, checkpoint, image_size=image_size)


def open_data(source: str, preprocessing: Preprocessing) -> TaskData:
    """Return the data that `--data` names, and say which images were left out."""
    from tuning.data import folder_task
    from tuning.digits import digit_task

    if source.startswith("digits:"):
        return digit_task(source.removeprefix("digits:"), preprocessing)
    data = folder_task(Path(source), preprocessing)
    if data.skipped:
        console.print(f"[yellow]Skipped {len(data.skipped)} unreadable images:[/] {escape(', '.join(data.skipped[:5]))}")
    return data


def parse_subset(blocks: str) -> Subset:
    """Return the subset that `--blocks` names."""
    if blocks == "none" or blocks == "all":
        return blocks
    return [name.strip() for name in blocks.split(",") if name.strip()]


def check_writable(out: Path, suffix: str = ".safetensors") -> None:
    """Refuse before the training and not after it."""
    if out.suffix != suffix:
        raise typer.BadParameter(f"{out} must end in {suffix}.", param_hint="--out")
    if not out.parent.is_dir():
        raise typer.BadParameter(f"the folder {out.parent} does not exist.", param_hint="--out")
