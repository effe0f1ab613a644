"""Draws a layout."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch
from matplotlib.patches import Rectangle as RectanglePatch
from matplotlib.path import Path as Outline

from espalier.figures.drawing import DIM_COLOUR, INK_COLOUR, render_figure
from espalier.figures.repository.flow import SHARED, TRUNK
from espalier.figures.repository.shapes import DIM, INK, ON, TASK_PAINT, Box, Layout, Rectangle, Ribbon, Text

_POINTS_PER_INCH = 72
_PNG_DPI = 2 * _POINTS_PER_INCH
# Of the tasks: Paul Tol's "muted" scheme, which colour-blind readers can tell apart.
_TASKS = ("#cc6677", "#117733", "#ddcc77", "#882255", "#44aa99", "#999933", "#aa4499", "#88ccee")
_NAMED = {INK: INK_COLOUR, DIM: DIM_COLOUR, TRUNK: "#3d4a5c", SHARED: "#0077bb"}


def render(layout: Layout, kind: str) -> bytes:
    """Return the picture as a file of `kind`, "svg" (text stays text) or "png" (two pixels a point). The background is white."""
    return render_figure(partial(_figure, layout), kind, png_dpi=_PNG_DPI, title=layout.title)


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
    """Return the area between two edges that leave and arrive level: cubic curves whose controls are half-way."""
    there = [(x, upper) for x, upper, _ in ribbon.stations]
    back = [(x, lower) for x, _, lower in reversed(ribbon.stations)]
    corners: list[tuple[float, float]] = [there[0]]
    codes = [int(Outline.MOVETO)]
    for edge in (there, back):
        if edge is back:
            corners.append(back[0])
            codes.append(int(Outline.LINETO))
        for (x, y), (next_x, next_y) in pairwise(edge):
            middle = (x + next_x) / 2
            corners += [(middle, y), (middle, next_y), (next_x, next_y)]
            codes += [int(Outline.CURVE4)] * 3
    corners.append(there[0])
    codes.append(int(Outline.CLOSEPOLY))
    return PathPatch(Outline(corners, codes), facecolor=_paint_colour(ribbon.paint), alpha=0.38, linewidth=0)


def _rectangle(rectangle: Rectangle) -> RectanglePatch:
    return RectanglePatch(
        (rectangle.x, rectangle.y),
        rectangle.width,
        rectangle.height,
        facecolor=_paint_colour(rectangle.paint),
        edgecolor="white",
        linewidth=0.5 if min(rectangle.width, rectangle.height) > 4 else 0,
    )


def _box(box: Box) -> list[FancyBboxPatch | RectanglePatch]:
    """Return the box, and a line between its streams."""
    colour = _paint_colour(box.paint)
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
        color=_ink_on(text.paint),
        horizontalalignment=text.anchor,
        verticalalignment="center_baseline",
    )


def _paint_colour(paint: str) -> str:
    """Return the colour of `paint`; tasks beyond the palette begin again."""
    if paint.startswith(TASK_PAINT):
        return _TASKS[int(paint.removeprefix(TASK_PAINT)) % len(_TASKS)]
    return _NAMED[paint]


def _ink_on(paint: str) -> str:
    """Return the colour of words: of the paint, or black or white, whichever stands out, for words ON a painted box."""
    if not paint.startswith(ON):
        return _paint_colour(paint)
    colour = _paint_colour(paint.removeprefix(ON))
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return _NAMED[INK] if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"
