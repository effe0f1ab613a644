"""Makes picture files with matplotlib's object API: no window, no global figure, and the same bytes for the same figure."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from io import BytesIO

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from espalier.figures.repository.palette import paint_colour
from espalier.figures.repository.shapes import INK

_FONTS = ["DejaVu Sans", "Verdana", "Arial", "Helvetica"]


def render_figure(draw: Callable[[], Figure], file_format: str, *, png_dpi: int, title: str | None = None) -> bytes:
    """Return what `draw` makes as a file, "svg" (text stays text) or "png" (`png_dpi` pixels an inch).

    title: of the document; it is not drawn. While `draw` runs, none of the user's settings of matplotlib are in force.
    Letters that DejaVu Sans lacks (as in Chinese labels) are boxes in a PNG; in an SVG the viewer's fonts show them.
    """
    file = BytesIO()
    about = {} if title is None else {"Title": title}
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()  # a user's style would change the picture
        mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "espalier", "font.sans-serif": _FONTS})
        mpl.rcParams.update({"text.color": paint_colour(INK), "text.parse_math": False, "hatch.linewidth": 0.7})
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = draw()
        if file_format == "svg":
            metadata = {**about, "Creator": "espalier", "Date": None}
            FigureCanvasSVG(figure).print_figure(file, format="svg", metadata=metadata)
        else:
            metadata = {**about, "Software": "espalier"}
            FigureCanvasAgg(figure).print_figure(file, format="png", dpi=png_dpi, metadata=metadata)
    return file.getvalue()
