"""`espalier tune plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from espalier.commands.options.tune import ForceOption, check_free
from espalier.console import console
from espalier.figures.ledgers.kinds import Kind


def plot(
    ledgers: Annotated[
        list[Path],
        typer.Argument(metavar="LEDGER...", help="Ledgers of searches or comparisons; several: profiles side by side."),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="What to draw to: FILE.svg or FILE.png.")],
    kind: Annotated[
        Kind,
        typer.Option(
            help="profile: each block tuned alone; pairs: each two; path: the steps of a greedy selection; samples: methods by number "
            "of training images; cost: accuracy against serving cost; auto: what the ledger holds."
        ),
    ] = Kind.auto,
    force: ForceOption = False,
) -> None:
    """Draw what a search or a comparison found, from its ledger.

    [dim]espalier tune plot inverted.jsonl parity.jsonl --out profiles.svg[/]
    """
    from espalier.figures.files import write_chart

    check_free(out, force=force)
    write_chart(ledgers, out, kind)
    console.print(f"Wrote {out}.", soft_wrap=True, markup=False, highlight=False)
