"""The options that name the task models: what `export`, `add` and `deploy` have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from espalier.commands.options.kinds import Kinds, parse_kinds
from espalier.commands.options.preprocessing import Preprocessings, parse_preprocessings
from espalier.commands.options.tokenizers import TokenizerFiles, parse_tokenizers
from espalier.commands.pairs import split_pairs
from espalier.console import loading, say

if TYPE_CHECKING:
    from exporter.sources.references import InputOptions, Preprocess
    from exporter.sources.task_model import Sources

Backbone = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="The network that the tasks were tuned from. Tasks of weights alone need it; a repository remembers the one of its export. "
        "An export without it makes what the tasks have in common the trunk.",
    ),
]
InputNames = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="TASK:OLD=NEW",
        help="The input OLD of the task's network is the input NEW of the others, or gets that name. Repeat it. By default inputs of "
        "networks with several are matched by name, the only one of a network by what it takes.",
    ),
]
Coupled = Annotated[
    bool,
    typer.Option(
        "--coupled",
        help="Take networks in which the answer to a row depends on the other rows of its batch, too. Each request is then a run of its "
        "own where that is so, without batching.",
    ),
]
Snap = Annotated[
    float | None,
    typer.Option(
        "--snap",
        metavar="DIFFERENCE",
        help="Where a task's weights differ from the backbone's (without one, the first task's) by so much at most, as a part of the "
        "largest in a tensor, take those, block by block: 1e-3 for weights that were rounded to half precision. By how much that changes "
        "its answers is said. A repository remembers it; 0: not.",
    ),
]


@dataclass(frozen=True)
class Inputs:
    """Options of the images that torch networks take."""

    preprocess: Annotated[
        str | None,
        typer.Option(
            metavar="in-graph|none",
            help="Of torch networks. in-graph: clients send uint8 NHWC images, normalised inside the trunk. none: float32 NCHW, "
            "normalised by the client as the repository says, or by the server, which is sent images. Default: as the repository was "
            "exported, else in-graph.",
        ),
    ] = None
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Side of the square input of torch networks. Default: what the tasks or the network say.",
        ),
    ] = None
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Mean of the images, in [0, 1]. Default: as for --image-size.")
    ] = None
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Standard deviation of the images. Default: as for --image-size.")
    ] = None

    def options(self) -> InputOptions:
        """Return them as the exporter takes them. Raises typer.BadParameter."""
        with loading():
            from exporter.sources.references import InputOptions

        channels = (_parse_channels(self.mean, "--mean"), _parse_channels(self.std, "--std", positive=True))
        kinds: tuple[Preprocess | None, ...] = ("in-graph", "none", None)
        for kind in kinds:
            if self.preprocess == kind:
                return InputOptions(kind, self.image_size, *channels)
        raise typer.BadParameter(f"must be in-graph or none, not {self.preprocess!r}.", param_hint="--preprocess")


@dataclass(frozen=True)
class TaskModels:
    """Options that name tasks, their models, and the network that they come from."""

    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME=MODEL", help="A task and its model. Repeat it for each task."),
    ] = None
    tasks: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Every model in a folder (.onnx, .safetensors, .pth, .pt, .ckpt), named like its file."),
    ] = None
    backbone: Backbone = None
    input_names: InputNames = None
    tokenizer: TokenizerFiles = None
    kind: Kinds = None
    preprocessing: Preprocessings = None

    def open(self, inputs: InputOptions, repo: Path | None = None) -> Sources:
        """Return how to load the models, and say what was assumed. repo: to which they come, None: to a new one.

        Raises typer.BadParameter, ExportError, TuningError.
        """
        named = _parse_tasks(self.task or [])
        if self.tasks is not None:
            named = _with_folder(named, self.tasks, self.backbone)
        others = self.tokenizer or (), self.input_names or (), self.kind or (), self.preprocessing or ()
        return open_named(self.backbone, named, inputs, *others, repo=repo)


def open_named(
    backbone: str | None,
    named: Mapping[str, str],
    options: InputOptions,
    tokenizers: Sequence[str] = (),
    input_names: Sequence[str] = (),
    kinds: Sequence[str] = (),
    preprocessings: Sequence[str] = (),
    *,
    repo: Path | None = None,
) -> Sources:
    """Return how to load the models `named`, and say what was assumed of them.

    tokenizers: as `parse_tokenizers` reads them. input_names, kinds, preprocessings: as the options have them. repo: as of
    `TaskModels.open`. Raises typer.BadParameter, ExportError, TuningError.
    """
    from exporter.build.analysis import BACKBONE
    from exporter.open_models import open_sources
    from exporter.sources.remembered import Remembered

    chosen = _parse_inputs(input_names, [*named, *([BACKBONE] if backbone else [])])
    remembered = Remembered() if repo is None else Remembered.by(repo)
    read = parse_tokenizers(tokenizers), chosen, parse_kinds(kinds, named)
    said = parse_preprocessings(preprocessings, named)
    sources = open_sources(backbone, named, options, *read, remembered, preprocessing=said)
    for sentence in sources.remarks:
        say(sentence)
    return sources


def _parse_inputs(texts: Sequence[str], tasks: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return TASK:OLD=NEW as NEW by OLD by TASK. Raises typer.BadParameter for another form, an unknown task, an input named twice."""
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        task = next((name for name in sorted(tasks, key=len, reverse=True) if text.startswith(f"{name}:")), None)
        old, _, new = text[len(task or "") + 1 :].rpartition("=")
        if not old or not new or ":" not in text:
            raise typer.BadParameter(f"{text!r} is not of the form TASK:OLD=NEW.", param_hint="--input")
        if task is None:
            raise typer.BadParameter(
                f"{text!r} begins with none of the tasks that come: {', '.join(tasks)}.", param_hint="--input"
            )
        if old in found.setdefault(task, {}):
            raise typer.BadParameter(f"gives the input {old!r} of {task!r} two names.", param_hint="--input")
        found[task][old] = new
    return found


def _parse_tasks(pairs: list[str]) -> dict[str, str]:
    """Return NAME=MODEL pairs as a mapping. Raises typer.BadParameter for a pair of another form or a repeated name."""
    return split_pairs(pairs, "NAME=MODEL", "--task")


def _parse_channels(text: str | None, option: str, *, positive: bool = False) -> tuple[float, float, float] | None:
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
