"""Draws the plots of benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import log2

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.framework.result import Plot, Series, Style
from espalier.figures.drawing import LABEL_SIZE, SMALL_SIZE, clean, make_figure, render_figure
from espalier.figures.style import DIM_COLOUR

_WIDTH, _HEIGHT = 7.4, 3.6  # inches, of what is drawn into
_DPI = 160
# Paul Tol's "bright" and two of "vibrant": readable on white and on black, and told apart by colour-blind readers.
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee7733", "#009988", "#997700", "#7b8794")
_MARKERS = "os^DvPX<>d"
_SHADE = "#bbccee"
_MANY = 12  # points of a line beyond which markers would hide it


def render(plot: Plot, file_format: str) -> bytes:
    """Return `plot` as a file, "svg" (text stays text) or "png"."""
    return render_figure(partial(draw, plot), file_format, png_dpi=_DPI, title=plot.title)


def draw(plot: Plot) -> Figure:
    """Return the figure of `plot`."""
    figure = make_figure(_WIDTH, _HEIGHT, plot.title, [plot.detail])
    axes = figure.subplots()
    clean(axes, grid="both", keep=("bottom", "left"))
    place = -1
    for series in plot.series:
        place += series.style in (Style.line, Style.marks)
        _draw_series(axes, series, max(place, 0))
    _set_scales(axes, plot)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    axes.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=SMALL_SIZE, frameon=False, labelcolor=DIM_COLOUR, handlelength=2.4
    )
    return figure


def _draw_series(axes: Axes, series: Series, place: int) -> None:
    """Draw it. place: of its colour and marker."""
    colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
    if series.style is Style.span:
        axes.axvspan(*series.x[:2], color=_SHADE, alpha=0.35, linewidth=0, label=series.name)
    elif series.style is Style.dashed:
        axes.plot(series.x, series.y, color=DIM_COLOUR, linestyle="--", linewidth=1.2, label=series.name)
    elif series.style is Style.dotted:
        axes.plot(series.x, series.y, color=colour, linestyle=":", linewidth=1.6, label=series.name)
    elif series.style is Style.points:
        axes.plot(series.x, series.y, ".", color=_COLOURS[0], markersize=2.5, label=series.name, rasterized=True)
    else:
        width = 1.6 if series.style is Style.line else 0
        size = 5 if len(series.x) <= _MANY else 3
        axes.plot(series.x, series.y, color=colour, marker=marker, markersize=size, linewidth=width, label=series.name)
        if series.low:
            axes.vlines(series.x, series.low, series.high, color=colour, linewidth=1.2)


def _set_scales(axes: Axes, plot: Plot) -> None:
    xs = sorted({x for series in plot.series for x in series.x})
    if "x" in plot.log:
        _powers(axes, "x", xs)
    elif 0 < len(xs) <= 8 and all(float(x).is_integer() for x in xs):  # counts, of tasks or of streams
        axes.xaxis.set_major_locator(FixedLocator(xs))
    if "y" in plot.log:
        _powers(axes, "y", [y for series in plot.series for y in series.y])
    else:
        most = max((value for series in plot.series for value in (*series.y, *series.high)), default=0.0)
        axes.set_ylim(0, 1.05 * (most or 1.0))


def _powers(axes: Axes, which: str, values: Sequence[float]) -> None:
    """Make an axis logarithmic with ticks at powers of two."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", base=2)
    positive = [value for value in values if value > 0] or [1.0]  # nothing was measured, or nothing that has a place on this axis
    low, high = int(log2(min(positive)) // 1), int(-(-log2(max(positive)) // 1))
    axis.set_major_locator(FixedLocator([2.0**power for power in range(low, high + 1)]))
    room = 0.1  # for the markers at the ends; every point lies between two labels
    (axes.set_xlim if which == "x" else axes.set_ylim)(2.0 ** (low - room), 2.0 ** (high + room))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_tick_params(labelsize=LABEL_SIZE)
