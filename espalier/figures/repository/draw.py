"""Draws a layout as PNG, with matplotlib; `espalier.figures.repository.svg` draws the same as SVG."""

from __future__ import annotations

from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.patches import Rectangle as RectanglePatch
from matplotlib.path import Path as Outline

from espalier.figures.drawing import render_figure
from espalier.figures.repository.paints import RIBBON_ALPHA, edges, ink_on, paint_colour
from espalier.figures.repository.shapes import Box, Layout, Rectangle, Ribbon, Text

_POINTS_PER_INCH = 72
_PNG_DPI = 2 * _POINTS_PER_INCH


def to_png(layout: Layout) -> bytes:
    """Return the picture as a PNG with two pixels a point. The background is white."""
    return render_figure(partial(_figure, layout), "png", png_dpi=_PNG_DPI, title=layout.title)


def _figure(layout: Layout) -> Figure:
    figure = Figure(figsize=(layout.width / _POINTS_PER_INCH, layout.height / _POINTS_PER_INCH), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, layout.width), ylim=(layout.height, 0))
    axes.set_axis_off()
    for ribbon in layout.ribbons:
        axes.add_patch(_ribbon(ribbon))
    for rectangle in layout.rectangles:
        axes.add_patch(_rectangle(rectangle))
    for box in layout.boxes:
        for patch in _box(box):
            axes.add_patch(patch)
    for text in (*layout.texts, *layout.ends.values()):
        _write(axes, text)
    return figure


def _ribbon(ribbon: Ribbon) -> PathPatch:
    there, back = edges(ribbon)
    curves = [int(Outline.CURVE4)]
    codes = [
        int(Outline.MOVETO),
        *curves * (len(there) - 1),
        int(Outline.LINETO),
        *curves * (len(back) - 1),
        int(Outline.CLOSEPOLY),
    ]
    outline = Outline([*there, *back, there[0]], codes)
    return PathPatch(outline, facecolor=paint_colour(ribbon.paint), alpha=RIBBON_ALPHA, linewidth=0)


def _rectangle(rectangle: Rectangle) -> RectanglePatch:
    return RectanglePatch(
        (rectangle.x, rectangle.y),
        rectangle.width,
        rectangle.height,
        facecolor=paint_colour(rectangle.paint),
        edgecolor="white",
        linewidth=0.5 if min(rectangle.width, rectangle.height) > 4 else 0,
    )


def _box(box: Box) -> list[FancyBboxPatch | RectanglePatch]:
    """Return the box, and a line between its streams."""
    colour = paint_colour(box.paint)
    style = f"round,pad=0,rounding_size={min(4.0, box.height / 2)}"
    patches: list[FancyBboxPatch | RectanglePatch] = [
        FancyBboxPatch((box.x, box.y), box.width, box.height, boxstyle=style, facecolor=colour, linewidth=0)
    ]
    stream = box.height / box.streams
    if stream >= 2:
        for number in range(1, box.streams):
            y = box.y + number * stream - 0.4
            patches.append(RectanglePatch((box.x, y), box.width, 0.8, facecolor="white", alpha=0.4, linewidth=0))
    return patches


def _write(axes: Axes, text: Text) -> None:
    axes.text(
        text.x,
        text.y,
        text.text,
        fontsize=text.size,
        family="sans-serif",
        parse_math=False,
        weight="bold" if text.bold else "normal",
        color=ink_on(text.paint),
        horizontalalignment=text.anchor,
        verticalalignment="center_baseline",
    )
