"""What the commands of `espalier tune` have in common: options, and what becomes of them."""

from __future__ import annotations

from dataclasses import dataclass, field
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
DataOption = Annotated[
    str,
    typer.Option(
        metavar="FOLDER|KIND:NAME",
        help="Images in one folder per class (optionally under train/ and val/ or test/); torchvision:NAME (cifar10, flowers102, ...); "
        "vtab:FOLDER; or, without a download, digits:TASK and glyphs:TASK (digits:parity, glyphs:font, ...).",
    ),
]


@dataclass(frozen=True)
class Weights:
    """Options of a network: what it starts from."""

    checkpoint: CheckpointOption = None
    image_size: Annotated[int | None, typer.Option(min=1, help="Pixels of the network's input, if not the backbone's own.")] = (
        None
    )

    def open(self, name: str) -> Backbone:
        """Return the backbone of that name."""
        from tuning.backbone import load_backbone

        with console.status("Loading the backbone"):
            return load_backbone(name, self.checkpoint, image_size=self.image_size)


@dataclass(frozen=True)
class Images:
    """Options of the data: where it is, how much of it is used, and what happens to it."""

    data_folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where torchvision's data sets are; default: the user's cache folder.")
    ] = None
    download: Annotated[bool, typer.Option("--download", help="Fetch a torchvision data set that is not there.")] = False
    corruption: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:SEVERITY",
            help="Disturb all images, as an input shift: gaussian_noise:3, motion_blur:5, ... (severity 1 to 5).",
        ),
    ] = None
    train_images: Annotated[int | None, typer.Option(min=2, help="Learn from so many images only, drawn from every class.")] = (
        None
    )

    def open(self, source: str, preprocessing: Preprocessing) -> TaskData:
        """Return the data that `source` names, and say which images were left out."""
        from tuning.sources import DataOptions, load_data

        options = DataOptions(self.data_folder, self.download, self.corruption, self.train_images)
        with console.status("Loading the data"):
            data = load_data(source, preprocessing, options)
        if data.skipped:
            console.print(f"[yellow]Skipped {len(data.skipped)} unreadable images:[/] {escape(', '.join(data.skipped[:5]))}")
        return data


@dataclass(frozen=True)
class AllImages(Images):
    """Options of data that is used as a whole."""

    train_images: int | None = field(default=None, init=False)


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
