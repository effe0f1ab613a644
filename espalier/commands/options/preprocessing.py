"""The option that says how images become the inputs of ONNX files: what `export`, `add` and `deploy` have in common."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

import typer

Preprocessings = Annotated[
    list[str] | None,
    typer.Option(
        "--preprocessing",
        metavar="TASK=HOW",
        help="How an image becomes the input of a task's ONNX file, where that does not say it: a preprocessor_config.json or config.json "
        "of its authors, or words, as imagenet,size=224,crop=0.875 or mean=0.5,std=0.5,interpolation=bicubic. Repeat it.",
    ),
]


def parse_preprocessings(given: Sequence[str], tasks: Collection[str]) -> dict[str, str]:
    """Return what is said by the names of tasks. Raises typer.BadParameter for another form, an unknown task, a task named twice."""
    said: dict[str, str] = {}
    for text in given:
        name, separator, how = text.partition("=")
        if not separator or not name or not how:
            raise typer.BadParameter(f"{text!r} is not of the form TASK=HOW.", param_hint="--preprocessing")
        if name not in tasks:
            raise typer.BadParameter(
                f"{name!r} is none of the tasks that come: {', '.join(tasks)}.", param_hint="--preprocessing"
            )
        if name in said:
            raise typer.BadParameter(f"the name {name!r} is given twice.", param_hint="--preprocessing")
        said[name] = how
    return said
