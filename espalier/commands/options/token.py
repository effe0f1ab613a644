"""The token for loading and unloading tasks, of the server and of those who tell it."""

from __future__ import annotations

import os
from pathlib import Path

import typer

VARIABLE = "ESPALIER_ADMIN_TOKEN"


def read_token(file: Path | None, option: str) -> str | None:
    """Return the token in `file`, which was given by `option`, else that of the variable ESPALIER_ADMIN_TOKEN, else None.

    It is never an argument of its own: other users can see the arguments of processes. Raises BadParameter.
    """
    if file is None:
        hint, token = VARIABLE, os.environ.get(VARIABLE, "").strip()
    else:
        hint, token = option, _read(file, option)
        if not token:
            raise typer.BadParameter(f"{file} is empty, but the server wants its admin token: write it there.", param_hint=hint)
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise typer.BadParameter("a token is one word of ASCII characters.", param_hint=hint)
    return token or None


def _read(file: Path, option: str) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{file} is not text.", param_hint=option) from error
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}.", param_hint=option) from error
