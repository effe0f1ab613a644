"""The option that says how images become the inputs of ONNX files: what `export`, `add` and `deploy` have in common."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Annotated

import typer

from espalier.commands.pairs import split_pairs

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
    return split_pairs(given, "TASK=HOW", "--preprocessing", tasks)
