"""The options that say where to cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from exporter.sharing.choose import CutOptions

Cuts = Annotated[
    str,
    typer.Option(
        metavar="cheap|exact|stages",
        help="cheap: leave out cuts that cost more time than they save. exact: every cut that sharing can use. stages: where a stage "
        "ends, and only there, so that tasks added later find their fork.",
    ),
]
RecutRule = Annotated[
    str | None,
    typer.Option(
        "--cuts",
        metavar="cheap|exact|stages",
        help="With --recut, how to cut, as for `espalier export`. Default: as it was exported.",
    ),
]
MaxSegments = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Leave out more cuts until N segments remain, the cheapest first.")
]


def cut_options(cuts: str, max_segments: int | None) -> CutOptions:
    """Return what the command line says. Raises typer.BadParameter."""
    from exporter.sharing.choose import CutOptions

    for rule in ("cheap", "exact", "stages"):
        if cuts == rule:
            return CutOptions(rule, max_segments)
    raise typer.BadParameter(f"must be cheap, exact or stages, not {cuts!r}.", param_hint="--cuts")


def recut_options(recut: bool, cuts: str | None) -> CutOptions | None:
    """Return what the command line says of cutting anew; None: as before. Raises typer.BadParameter."""
    if cuts is None:
        return None
    if not recut:
        raise typer.BadParameter("says how to cut anew; give --recut, too.", param_hint="--cuts")
    return cut_options(cuts, None)
