"""Arrays in files, as inputs of a task, and what it answers to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer
from rich.markup import escape
from rich.table import Table

from espalier.console import console, print_data

if TYPE_CHECKING:
    from contract.dtypes import Array
    from espalier.client import Client

_SHOWN = 6  # numbers of an output


def read_arrays(settings: Sequence[str]) -> dict[str, Array]:
    """Return the arrays of NAME=FILE, by name. Raises BadParameter."""
    import numpy as np

    arrays: dict[str, Array] = {}
    for setting in settings:
        name, _, file = setting.partition("=")
        if not name or not file or name in arrays:
            raise typer.BadParameter(f"{setting!r} is not NAME=FILE, each name once.", param_hint="--array")
        try:
            found = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise typer.BadParameter(f"{file} is no array that numpy can read (.npy).", param_hint="--array") from error
        if not isinstance(found, np.ndarray):
            raise typer.BadParameter(f"{file} holds several arrays; give one with numpy.save.", param_hint="--array")
        arrays[name] = found
    return arrays


def infer_arrays(client: Client, inputs: Mapping[str, Array], tasks: Sequence[str], *, as_json: bool) -> None:
    """Ask for one of `tasks`, several, or all, and show what they answer."""
    model, outputs = (tasks[0], []) if len(tasks) == 1 else ("all_tasks", list(tasks))
    answers = client.infer(model, inputs, outputs)
    if as_json:
        print_data({name: {"shape": list(values.shape), "values": values.tolist()} for name, values in answers.items()})
        return
    table = Table("output", "shape", "values")
    for name, values in answers.items():
        numbers = [f"{value:.4g}" if values.dtype.kind == "f" else str(value) for value in values.ravel()[:_SHOWN].tolist()]
        more = ", ..." if values.size > _SHOWN else ""
        table.add_row(escape(name), " x ".join(map(str, values.shape)), escape(", ".join(numbers) + more))
    console.print(table)
