"""The token for loading and unloading tasks."""

from __future__ import annotations

import os
from pathlib import Path

import typer

VARIABLE = "ESPALIER_ADMIN_TOKEN"


def read_token(file: Path | None) -> str | None:
    """Return the token in `file`, else that of the variable ESPALIER_ADMIN_TOKEN, else None. Raises BadParameter.

    It is never an argument of its own: other users can see the arguments of processes.
    """
    if file is None:
        return os.environ.get(VARIABLE, "").strip() or None
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"The token file {file} cannot be read as text; give a file that holds the token.") from error
    if not token:
        raise typer.BadParameter(f"The token file {file} is empty; write the token into it.")
    return token
