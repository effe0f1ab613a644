"""The options that name the task models: what `export` and `add` have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from espalier.console import say

if TYPE_CHECKING:
    from exporter.sources.references import InputOptions
    from exporter.sources.task_model import Sources

Task = Annotated[
    list[str] | None,
    typer.Option("--task", metavar="NAME=MODEL", help="A task and its model. Repeat it for each task."),
]
Tasks = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Every model in a folder (.onnx, .safetensors, .pth, .pt), named like its file."),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="The network that the tasks were tuned from. Needed for tasks of weights alone; without it, what the tasks have in "
        "common becomes the trunk.",
    ),
]
Preprocess = Annotated[
    str,
    typer.Option(
        metavar="in-graph|none",
        help="Of torch networks. in-graph: clients send uint8 NHWC images, normalised inside the trunk. none: float32 NCHW, "
        "normalised by the client as the repository says.",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="PIXELS",
        help="Side of the square input of torch networks. Default: what the tasks or the network say.",
    ),
]
Mean = Annotated[str | None, typer.Option(metavar="R,G,B", help="Mean of the images, in [0, 1]. Default: as for --image-size.")]
Std = Annotated[str | None, typer.Option(metavar="R,G,B", help="Standard deviation of the images. Default: as for --image-size.")]


def input_options(preprocess: str, image_size: int | None, mean: str | None, std: str | None) -> InputOptions:
    """Return what the command line says of the inputs. Raises typer.BadParameter."""
    from exporter.sources.references import InputOptions

    channels = (parse_channels(mean, "--mean"), parse_channels(std, "--std", positive=True))
    for kind in ("in-graph", "none"):
        if preprocess == kind:
            return InputOptions(kind, image_size, *channels)
    raise typer.BadParameter(f"must be in-graph or none, not {preprocess!r}.", param_hint="--preprocess")


def open_inputs(backbone: str | None, pairs: list[str] | None, folder: Path | None, options: InputOptions) -> Sources:
    """Return how to load the models that the command line names. Raises typer.BadParameter, ExportError, TuningError."""
    named = parse_tasks(pairs or [])
    if folder is not None:
        named = _with_folder(named, folder, backbone)
    return open_named(backbone, named, options)


def open_named(backbone: str | None, named: Mapping[str, str], options: InputOptions) -> Sources:
    """Return how to load the models `named`, and say what was assumed of them. Raises ExportError, TuningError."""
    from exporter.open_models import open_sources

    sources = open_sources(backbone, named, options)
    for sentence in sources.remarks:
        say(sentence)
    return sources


def parse_tasks(pairs: list[str]) -> dict[str, str]:
    """Return NAME=MODEL pairs as a mapping. Raises typer.BadParameter for a pair of another form or a repeated name."""
    named: dict[str, str] = {}
    for pair in pairs:
        name, separator, model = pair.partition("=")
        if not separator or not name or not model:
            raise typer.BadParameter(f"{pair!r} is not of the form NAME=MODEL.", param_hint="--task")
        if name in named:
            raise typer.BadParameter(f"the name {name!r} is given twice.", param_hint="--task")
        named[name] = model
    return named


def parse_channels(text: str | None, option: str, *, positive: bool = False) -> tuple[float, float, float] | None:
    """Return "R,G,B" as three finite numbers. Raises typer.BadParameter for anything else, and for others than `positive` ones."""
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not of the form R,G,B, as in 0.485,0.456,0.406.", param_hint=option) from error
    if not all(math.isfinite(value) and (value > 0 or not positive) for value in (red, green, blue)):
        raise typer.BadParameter(f"{text!r} must be three {'positive ' if positive else ''}finite numbers.", param_hint=option)
    return red, green, blue


def _with_folder(named: dict[str, str], folder: Path, backbone: str | None) -> dict[str, str]:
    from exporter.sources.references import find_tasks

    found = find_tasks(folder, backbone)
    for name, file in found.items():
        if name in named:
            raise typer.BadParameter(f"holds {file.name}, but the name {name!r} is given with --task, too.", param_hint="--tasks")
    return named | {name: str(file) for name, file in found.items()}
