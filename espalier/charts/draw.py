"""Draws charts: the same bytes for the same ledgers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from matplotlib.figure import Figure

from espalier.charts.cost import draw_cost
from espalier.charts.errors import OneLedgerOnly
from espalier.charts.facts import profile_facts
from espalier.charts.kinds import Kind, choose_kind
from espalier.charts.methods import draw_methods
from espalier.charts.pairs import draw_pairs
from espalier.charts.path import draw_path
from espalier.charts.profile import draw_profiles
from espalier.charts.source import Source
from espalier.drawing import render_figure

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
