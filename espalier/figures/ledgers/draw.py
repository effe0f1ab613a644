"""Draws charts: the same bytes for the same ledgers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from matplotlib.figure import Figure

from espalier.figures.drawing import render_figure
from espalier.figures.errors import OneLedgerOnly
from espalier.figures.ledgers.cost import draw_cost
from espalier.figures.ledgers.facts import profile_facts
from espalier.figures.ledgers.kinds import Kind, choose_kind
from espalier.figures.ledgers.methods import draw_methods
from espalier.figures.ledgers.pairs import draw_pairs
from espalier.figures.ledgers.path import draw_path
from espalier.figures.ledgers.profile import draw_profiles
from espalier.figures.ledgers.source import Source

_PNG_DPI = 160
_ONE_LEDGER: Mapping[Kind, Callable[[Source], Figure]] = MappingProxyType(
    {Kind.pairs: draw_pairs, Kind.path: draw_path, Kind.samples: draw_methods, Kind.cost: draw_cost}
)


def render(sources: Sequence[Source], kind: Kind, file_format: str) -> bytes:
    """Return the chart as a file, "svg" (text stays text) or "png".

    Raises LedgerLacks when a ledger does not hold what the chart shows, OneLedgerOnly, OtherBlocks.
    """
    chosen = choose_kind(sources) if kind is Kind.auto else kind
    return render_figure(partial(draw, sources, chosen), file_format, png_dpi=_PNG_DPI)


def draw(sources: Sequence[Source], kind: Kind) -> Figure:
    """Return the figure of a chart of `kind`, which is not auto."""
    if kind is Kind.profile:
        return draw_profiles(profile_facts(sources))
    if len(sources) > 1:
        raise OneLedgerOnly(kind.value, len(sources))
    return _ONE_LEDGER[kind](sources[0])
