"""The option that gives tasks their tokenizers: what `export`, `add` and `deploy` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

TokenizerFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--tokenizer",
        metavar="[NAME=]FILE",
        help="The tokenizer.json of tasks that take texts: of one task, or of all without one of their own. Repeat it for each.",
    ),
]


def parse_tokenizers(given: Sequence[str]) -> dict[str, str]:
    """Return files by the names of tasks, "" for all. Raises typer.BadParameter for a name that is given twice."""
    files: dict[str, str] = {}
    for text in given:
        name, separator, file = text.partition("=")
        if not separator or Path(text).exists():
            name, file = "", text
        if name in files:
            raise typer.BadParameter(
                f"{f'the name {name!r}' if name else 'one for all'} is given twice.", param_hint="--tokenizer"
            )
        files[name] = file
    return files
