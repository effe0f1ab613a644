"""`espalier tune blocks`."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from espalier.commands.options.tune import BackboneOption, CheckpointOption, Weights
from espalier.console import console


def blocks(backbone: BackboneOption, checkpoint: CheckpointOption = None) -> None:
    """List the blocks of a backbone, as `tune fit --blocks` takes them."""
    table = Table("block", "parameters")
    loaded = Weights(checkpoint).open(backbone)
    for name in loaded.blocks:
        parameters = sum(parameter.numel() for parameter in loaded.network.get_submodule(name).parameters())
        table.add_row(escape(name), f"{parameters:,}")
    console.print(table)
