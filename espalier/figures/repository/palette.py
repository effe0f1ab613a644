"""The colours: the tasks' are Paul Tol's "muted" scheme, which colour-blind readers can tell apart."""

from __future__ import annotations

from espalier.figures.drawing import DIM_COLOUR, INK_COLOUR
from espalier.figures.repository.flow import SHARED, TRUNK
from espalier.figures.repository.shapes import DIM, INK, ON, TASK_PAINT

_NAMED = {INK: INK_COLOUR, DIM: DIM_COLOUR, TRUNK: "#3d4a5c", SHARED: "#0077bb"}
_TASKS = ("#cc6677", "#117733", "#ddcc77", "#882255", "#44aa99", "#999933", "#aa4499", "#88ccee")


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
