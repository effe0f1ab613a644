"""`espalier infer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from espalier.client import Client
from espalier.console import console, print_data


def infer(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file (PNG, JPEG, ...).")],
    task: Annotated[
        list[str] | None, typer.Option("--task", help="A task to ask for; repeat it for several. Default: all.")
    ] = None,
    url: Annotated[str, typer.Option(help="The HTTP address of a running server.")] = "http://127.0.0.1:8000",
    top_k: Annotated[int, typer.Option(min=1, help="How many labels to show per task.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the server's whole answer.")] = False,
) -> None:
    """Ask a running server about an image, for one task, several, or all."""
    answer = Client(url).predict(image, task or [], top_k)
    if as_json:
        print_data(answer)
        return
    console.print(_table(answer))


def _table(answer: dict[str, Any]) -> Table:
    table = Table("task", "label", "score")
    for name, result in answer["tasks"].items():
        for index, entry in enumerate(result["labels"]):
            table.add_row(escape(name) if index == 0 else "", escape(str(entry["label"])), _score(entry["score"]))
        table.add_section()
    return table


def _score(score: float | None) -> str:
    return "not finite" if score is None else f"{score:.3f}"
