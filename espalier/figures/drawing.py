"""How figures look (one font, few colours, no frame where an axis is enough), and picture files of them.

They are made with matplotlib's object API: no window, no global figure, and the same bytes for the same figure.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from espalier.figures.style import DIM_COLOUR, FONTS, GRID, INK_COLOUR, WORSE
from espalier.figures.text import characters, drawable

POINTS = 72  # per inch
_TITLE_SIZE, _DETAIL_SIZE, LABEL_SIZE, SMALL_SIZE = 12.0, 9.0, 9.0, 8.0
_MARGIN = 0.14  # inches
_TITLE_LINE, _DETAIL_LINE = 0.21, 0.165


def render_figure(draw: Callable[[], Figure], file_format: str, *, png_dpi: int, title: str | None = None) -> bytes:
    """Return what `draw` makes as a file, "svg" (text stays text) or "png" (`png_dpi` pixels an inch).

    title: of the document; it is not drawn. While `draw` runs, none of the user's settings of matplotlib are in force.
    Letters that DejaVu Sans lacks (as in Chinese labels) are boxes in a PNG; in an SVG the viewer's fonts show them.
    """
    file = BytesIO()
    about = {} if title is None else {"Title": title}
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # a user's style would change the picture
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "espalier", "font.sans-serif": [*FONTS]})
        mpl.rcParams.update({"text.color": INK_COLOUR, "text.parse_math": False, "hatch.linewidth": 0.7})
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = draw()
        if file_format == "svg":
            metadata = {**about, "Creator": "espalier", "Date": None}
            FigureCanvasSVG(figure).print_figure(file, format="svg", metadata=metadata)
        else:
            metadata = {**about, "Software": "espalier"}
            FigureCanvasAgg(figure).print_figure(file, format="png", dpi=png_dpi, metadata=metadata)
    return file.getvalue()


def make_figure(width: float, height: float, title: str, details: Sequence[str]) -> Figure:
    """Return a figure of `width` inches whose plots have `height` inches below the words, which are wrapped."""
    room = (width - 2 * _MARGIN) * POINTS
    titles = textwrap.wrap(drawable(title), characters(room, 1.12 * _TITLE_SIZE))
    lines = [line for detail in details for line in textwrap.wrap(drawable(detail), characters(room, _DETAIL_SIZE))]
    top = 2 * _MARGIN + _TITLE_LINE * len(titles) + _DETAIL_LINE * len(lines)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.02, rect=(0, 0, 1, height / (height + top)))
    figure = Figure(figsize=(width, height + top), facecolor="white", layout=layout)
    y = height + top - _MARGIN
    for lines_, size, line_height, colour in (
        (titles, _TITLE_SIZE, _TITLE_LINE, INK_COLOUR),
        (lines, _DETAIL_SIZE, _DETAIL_LINE, DIM_COLOUR),
    ):
        for line in lines_:
            weight = "bold" if size == _TITLE_SIZE else "normal"
            place = (_MARGIN / width, y / (height + top))
            figure.text(*place, line, fontsize=size, color=colour, weight=weight, va="top")
            y -= line_height
    return figure


def clean(axes: Axes, grid: Literal["x", "y", "both"] | None = None, keep: Sequence[str] = ()) -> None:
    """Take away the frame but for the sides to `keep`, and draw faint lines across "x", "y" or "both" axes."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in keep)
        spine.set_color(WORSE)
    axes.tick_params(length=0, colors=INK_COLOUR, labelsize=LABEL_SIZE)
    axes.set_axisbelow(True)
    if grid is not None:
        axes.grid(True, axis=grid, color=GRID, linewidth=0.8)
    axes.xaxis.label.set(color=DIM_COLOUR, fontsize=LABEL_SIZE)
    axes.yaxis.label.set(color=DIM_COLOUR, fontsize=LABEL_SIZE)
