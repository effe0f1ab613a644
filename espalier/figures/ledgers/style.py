"""How charts look: one font, few colours, no frame where an axis is enough."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from espalier.figures.ledgers.words import printable
from espalier.figures.repository.palette import paint_colour
from espalier.figures.repository.shapes import DIM, INK
from espalier.figures.repository.text import characters

INK_COLOUR, DIM_COLOUR = paint_colour(INK), paint_colour(DIM)
MAIN = "#0077bb"  # what a chart is about
PALE = "#a6cbe3"
WORSE = "#cfd4da"
GRID = "#e8ebef"
CHOSEN = "#cc3311"
POINTS = 72  # per inch
TITLE_SIZE, DETAIL_SIZE, LABEL_SIZE, SMALL_SIZE = 12.0, 9.0, 9.0, 8.0
_MARGIN = 0.14  # inches
_TITLE_LINE, _DETAIL_LINE = 0.21, 0.165

# For lines that are not in _KNOWN: colours of Paul Tol's schemes that are not faint on white. Markers tell apart what colours do not.
_COLOURS = ("#ee6677", "#66ccee", "#999933", "#332288", "#44aa99", "#777777")
_MARKERS = ("d", "*", "8", "H", "1", "|")


@dataclass(frozen=True)
class Look:
    """Colour and marker of a line."""

    colour: str
    marker: str


# Methods look the same in all charts.
_KNOWN = {
    "subtuning": Look(MAIN, "o"),
    "siamese subtuning": Look("#33bbee", "D"),
    "linear probe": Look("#7b8794", "s"),
    "full finetuning": Look("#000000", "^"),
    "all blocks": Look("#aa3377", "v"),
    "lp-ft": Look("#228833", "P"),
    "surgical": Look("#ee7733", "X"),
    "auto-rgn": Look("#b8860b", "<"),
    "gradual unfreezing": Look("#882255", ">"),
    "lora": Look("#cc3311", "p"),
    "norm-only": Look("#009988", "h"),
}


def looks(names: Sequence[tuple[str, str]]) -> dict[str, Look]:
    """Return a look for each line, by name; (method, name of the line): a method's first line looks as the method always does."""
    taken: set[Look] = set()
    found = {}
    others = _other_looks()
    for method, name in names:
        look = _KNOWN.get(method)
        if look is None or look in taken:
            look = next((other for other in others if other not in taken), Look(INK_COLOUR, "."))
        taken.add(look)
        found[name] = look
    return found


def _other_looks() -> Iterator[Look]:
    """Yield every colour with a marker, then every colour with the next marker, and so on."""
    for shift in range(len(_MARKERS)):
        for index, colour in enumerate(_COLOURS):
            yield Look(colour, _MARKERS[(index + shift) % len(_MARKERS)])


def make_figure(width: float, height: float, title: str, details: Sequence[str]) -> Figure:
    """Return a figure of `width` inches whose plots have `height` inches below the words, which are wrapped."""
    room = (width - 2 * _MARGIN) * POINTS
    titles = textwrap.wrap(printable(title), characters(room, 1.12 * TITLE_SIZE))
    lines = [line for detail in details for line in textwrap.wrap(printable(detail), characters(room, DETAIL_SIZE))]
    top = 2 * _MARGIN + _TITLE_LINE * len(titles) + _DETAIL_LINE * len(lines)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.02, rect=(0, 0, 1, height / (height + top)))
    figure = Figure(figsize=(width, height + top), facecolor="white", layout=layout)
    y = height + top - _MARGIN
    for lines_, size, line_height, colour in (
        (titles, TITLE_SIZE, _TITLE_LINE, INK_COLOUR),
        (lines, DETAIL_SIZE, _DETAIL_LINE, DIM_COLOUR),
    ):
        for line in lines_:
            weight = "bold" if size == TITLE_SIZE else "normal"
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


def round_numbers(axis: Axis, most: int) -> None:
    """Put at most about `most` ticks at round numbers."""
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))


def apart(places: Sequence[float], gap: float) -> list[float]:
    """Return the places moved as little as it takes for neighbours to be `gap` apart; their order stays."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    groups: list[tuple[float, int]] = []  # centre and size of what stands evenly spaced
    for index in order:
        centre, size = places[index], 1
        while groups and centre - (size - 1) * gap / 2 < groups[-1][0] + (groups[-1][1] - 1) * gap / 2 + gap:
            before, count = groups.pop()
            centre, size = (before * count + centre * size) / (count + size), count + size
        groups.append((centre, size))
    spread = [centre + (number - (size - 1) / 2) * gap for centre, size in groups for number in range(size)]
    result = [0.0] * len(places)
    for index, place in zip(order, spread, strict=True):
        result[index] = place
    return result
