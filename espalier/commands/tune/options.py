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
        metavar="FOLDER|KIND:NAME",
        help="Images in one folder per class (optionally under train/ and val/ or test/); torchvision:NAME (cifar10, flowers102, ...); "
        "vtab:FOLDER; or, without a download, digits:TASK and glyphs:TASK (digits:parity, glyphs:font, ...).",
    ),
]
DataFolderOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where torchvision's data sets are; default: the user's cache folder.")
]
DownloadOption = Annotated[bool, typer.Option("--download", help="Fetch a torchvision data set that is not there.")]
CorruptionOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME:SEVERITY",
        help="Disturb all images, as an input shift: gaussian_noise:3, motion_blur:5, ... (severity 1 to 5).",
    ),
]
TrainImagesOption = Annotated[int | None, typer.Option(min=2, help="Learn from so many images only, drawn from every class.")]


def open_backbone(name: str, checkpoint: Path | None, image_size: int | None) -> Backbone:
    """Return the backbone that the options name."""
    from tuning.backbone import load_backbone

    with console.status("Loading the backbone"):
        return load_backbone(name, checkpoint, image_size=image_size)


def open_data(
    source: str,
    preprocessing: Preprocessing,
    *,
    folder: Path | None = None,
    download: bool = False,
    corruption: str | None = None,
    train_images: int | None = None,
) -> TaskData:
    """Return the data that the options name, and say which images were left out."""
    from tuning.sources import DataOptions, load_data

    with console.status("Loading the data"):
        data = load_data(source, preprocessing, DataOptions(folder, download, corruption, train_images))
    if data.skipped:
        console.print(f"[yellow]Skipped {len(data.skipped)} unreadable images:[/] {escape(', '.join(data.skipped[:5]))}")
    return data


def parse_subset(blocks: str) -> Subset:
    """Return the subset that `--blocks` names."""
    if blocks == "none" or blocks == "all":
        return blocks
    return [name.strip() for name in blocks.split(",") if name.strip()]


def check_writable(out: Path, suffix: str = ".safetensors", option: str = "--out") -> None:
    """Refuse before the training and not after it."""
    if out.suffix != suffix:
        raise typer.BadParameter(f"{out} must end in {suffix}.", param_hint=option)
    if not out.parent.is_dir():
        raise typer.BadParameter(f"the folder {out.parent} does not exist.", param_hint=option)
