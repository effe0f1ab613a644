"""Draws charts with matplotlib's object API: no window, no global figure, and the same bytes for the same ledgers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from types import MappingProxyType

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
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
from espalier.charts.style import INK_COLOUR

_PNG_DPI = 160
_FONTS = ["DejaVu Sans", "Verdana", "Arial", "Helvetica"]
_ONE_LEDGER: Mapping[Kind, Callable[[Source], Figure]] = MappingProxyType(
    {Kind.pairs: draw_pairs, Kind.path: draw_path, Kind.samples: draw_methods, Kind.cost: draw_cost}
)


def render(sources: Sequence[Source], kind: Kind, file_format: str) -> bytes:
    """Return the chart as a file, "svg" (text stays text) or "png".

    Raises LedgerLacks when a ledger does not hold what the chart shows, OneLedgerOnly, OtherBlocks.
    """
    file = BytesIO()
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # a user's style would change the picture
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "espalier", "font.sans-serif": _FONTS})
        mpl.rcParams.update({"text.color": INK_COLOUR, "text.parse_math": False, "hatch.linewidth": 0.7})
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = draw(sources, choose_kind(sources) if kind is Kind.auto else kind)
        if file_format == "svg":
            FigureCanvasSVG(figure).print_figure(file, format="svg", metadata={"Creator": "espalier", "Date": None})
        else:
            FigureCanvasAgg(figure).print_figure(file, format="png", dpi=_PNG_DPI, metadata={"Software": "espalier"})
    return file.getvalue()


def draw(sources: Sequence[Source], kind: Kind) -> Figure:
    """Return the figure of a chart of `kind`, which is not auto."""
    if kind is Kind.profile:
        return draw_profiles(profile_facts(sources))
    if len(sources) > 1:
        raise OneLedgerOnly(kind.value, len(sources))
    return _ONE_LEDGER[kind](sources[0])
