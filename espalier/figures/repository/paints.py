"""The colours of the picture, and the outline of a ribbon: what those who draw it agree on."""

from __future__ import annotations

from itertools import pairwise

from espalier.figures.repository.flow import SHARED, TRUNK
from espalier.figures.repository.shapes import DIM, INK, ON, TASK_PAINT, Ribbon
from espalier.figures.style import DIM_COLOUR, INK_COLOUR

RIBBON_ALPHA = 0.38
# Of the tasks: Paul Tol's "muted" scheme, which colour-blind readers can tell apart.
_TASKS = ("#cc6677", "#117733", "#ddcc77", "#882255", "#44aa99", "#999933", "#aa4499", "#88ccee")
_NAMED = {INK: INK_COLOUR, DIM: DIM_COLOUR, TRUNK: "#3d4a5c", SHARED: "#0077bb"}
_Point = tuple[float, float]


def paint_colour(paint: str) -> str:
    """Return the colour of `paint`; tasks beyond the palette begin again."""
    if paint.startswith(TASK_PAINT):
        return _TASKS[int(paint.removeprefix(TASK_PAINT)) % len(_TASKS)]
    return _NAMED[paint]


def ink_on(paint: str) -> str:
    """Return the colour of words: of the paint, or black or white, whichever stands out, for words ON a painted box."""
    if not paint.startswith(ON):
        return paint_colour(paint)
    colour = paint_colour(paint.removeprefix(ON))
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return _NAMED[INK] if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "#ffffff"


def edges(ribbon: Ribbon) -> tuple[list[_Point], list[_Point]]:
    """Return the upper edge from left to right and the lower one back: a start, then three points for each cubic curve.

    Edges leave and arrive level: the controls of a curve are half-way.
    """
    there = [(x, upper) for x, upper, _ in ribbon.stations]
    back = [(x, lower) for x, _, lower in reversed(ribbon.stations)]
    return _curved(there), _curved(back)


def _curved(stations: list[_Point]) -> list[_Point]:
    points = [stations[0]]
    for (x, y), (next_x, next_y) in pairwise(stations):
        middle = (x + next_x) / 2
        points += [(middle, y), (middle, next_y), (next_x, next_y)]
    return points
