"""`espalier tune`."""

from __future__ import annotations

import typer

from espalier.commands.tune.blocks import blocks
from espalier.commands.tune.fit import fit

app = typer.Typer(help="Tune tasks: a few blocks of a backbone per task, the rest stays bit-identical.", no_args_is_help=True)
app.command()(blocks)
app.command()(fit)
