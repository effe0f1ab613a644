"""`espalier tune`."""

from __future__ import annotations

import typer

from espalier.commands.options.groups import ungroup
from espalier.commands.tune.active import active
from espalier.commands.tune.blocks import blocks
from espalier.commands.tune.compare import compare
from espalier.commands.tune.costs import costs
from espalier.commands.tune.fit import fit
from espalier.commands.tune.greedy import greedy
from espalier.commands.tune.plot import plot
from espalier.commands.tune.pretrain import pretrain
from espalier.commands.tune.profile import profile
from espalier.commands.tune.prune import prune
from espalier.commands.tune.replay import replay
from espalier.commands.tune.transfer import transfer

__all__ = ["app"]

app = typer.Typer(help="Tune tasks: a few blocks of a backbone per task, the rest stays bit-identical.", no_args_is_help=True)
for _command in (blocks, costs, profile, greedy, fit, active, prune, compare, plot, replay, transfer, pretrain):
    app.command()(ungroup(_command))
