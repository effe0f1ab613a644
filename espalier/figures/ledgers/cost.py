"""Draws what was scored against what serving a subset costs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from espalier.figures.drawing import SMALL_SIZE, clean, make_figure
from espalier.figures.ledgers.facts import CostPoints, cost_facts
from espalier.figures.ledgers.source import Source
from espalier.figures.ledgers.style import CHOSEN, MAIN, round_numbers
from espalier.figures.ledgers.words import subset_words
from espalier.figures.style import DIM_COLOUR, INK_COLOUR, WORSE
from espalier.figures.text import drawable
from tuning.search.score import Subset

_WIDTH, _HEIGHT = 5.2, 4.1  # inches, of what is drawn into
_ROW = 0.185  # inches in the list
_NEAR = 0.05  # of the axes: numbers closer than that would overlap
_MOST_NAMES = 4  # of a subset in the list
_PREFIXES = ((1e9, "GMACs"), (1e6, "MMACs"), (1e3, "kMACs"), (1.0, "MACs"))


def draw_cost(source: Source) -> Figure:
    """Return all subsets as dots, and those that no other beats numbered along a line and listed beside it."""
    points = cost_facts(source)
    blocks = [block.name for block in source.contents.header.blocks]
    rows = [(str(n), s, subset_words(s, blocks, _MOST_NAMES)) for n, s in enumerate(points.front, 1)]
    if points.chosen is not None and points.chosen not in points.front:
        rows.append(("", points.chosen, subset_words(points.chosen, blocks, _MOST_NAMES)))
    names = 0.7 + 0.066 * max(len(words) for *_, words in rows)
    height = max(_HEIGHT, _ROW * (len(rows) + 2) + 0.4)
    figure = make_figure(
        _WIDTH + names + 0.7,
        height,
        f"{source.metric.opening} against serving cost: {source.about}",
        _details(points),
    )
    plot, margin = figure.subplots(1, 2, width_ratios=[_WIDTH, names])
    unit, unit_words = _unit(points)
    _draw_points(plot, points, unit)
    clean(plot, grid="both", keep=("bottom",))
    plot.set_xlabel(f"{unit_words} per image that the task adds" + ("" if points.measured else ", from the first tuned block on"))
    plot.set_ylabel(source.metric.axis)
    round_numbers(plot.yaxis, 9)
    _add_share_axis(plot, points, unit)
    _list_front(margin, points, rows, height)
    return figure


def _details(points: CostPoints) -> list[str]:
    words = f"Every subset that was scored on {points.source.folds}; numbered: no other is as cheap and as good."
    if points.chosen is None:
        return [words]
    return [words, "Ring: chosen by the last selection."]


def _unit(points: CostPoints) -> tuple[float, str]:
    largest = max(points.macs.values())
    return next(((unit, words) for unit, words in _PREFIXES if largest >= unit), _PREFIXES[-1])


def _place(points: CostPoints, subset: Subset, unit: float) -> tuple[float, float]:
    return points.macs[subset] / unit, points.source.metric.scaled(points.scores[subset].mean)


def _draw_points(axes: Axes, points: CostPoints, unit: float) -> None:
    places = [_place(points, subset, unit) for subset in points.scores]
    axes.plot(*zip(*places, strict=True), "o", markersize=4.5, color=WORSE, markeredgecolor="#b3bac3", markeredgewidth=0.6)
    front = [_place(points, subset, unit) for subset in points.front]
    axes.step(*zip(*front, strict=True), where="post", color=MAIN, linewidth=1.5)
    axes.plot(*zip(*front, strict=True), "o", markersize=6, color=MAIN)
    right = max(x for x, _ in places) or 1.0
    axes.set_xlim(-0.05 * right, 1.04 * right)
    # The best is as good for whatever costs more: the step goes on to the end.
    axes.plot([front[-1][0], 1.04 * right], [front[-1][1]] * 2, color=MAIN, linewidth=1.5)
    _number(axes, front, points.front.index(points.chosen) if points.chosen in points.front else None)
    if points.chosen is not None:
        axes.plot(
            *_place(points, points.chosen, unit), "o", markersize=14, fillstyle="none", color=CHOSEN, markeredgewidth=2, zorder=5
        )


def _number(axes: Axes, front: Sequence[tuple[float, float]], ringed: int | None) -> None:
    """Write numbers above and to the left of the front, where no other subset can be; not where they would stand on each other."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    written: tuple[float, float] | None = None
    for index, (x, y) in enumerate(front):
        place = ((x - left) / (right - left), (y - bottom) / (top - bottom))
        if written is not None and place[0] - written[0] < _NEAR and place[1] - written[1] < _NEAR:
            continue
        written = place
        offset = (-8, 6) if index == ringed else (-4, 4)
        style: dict[str, Any] = {"fontsize": SMALL_SIZE, "weight": "bold", "color": MAIN}
        axes.annotate(str(index + 1), (x, y), xytext=offset, textcoords="offset points", ha="right", **style)


def _add_share_axis(axes: Axes, points: CostPoints, unit: float) -> None:
    whole = points.source.contents.header.macs / unit
    if whole > 0:
        share = axes.secondary_xaxis("top", functions=(partial(np.multiply, 100 / whole), partial(np.multiply, whole / 100)))
        share.set_xlabel("% of the backbone's MACs", color=DIM_COLOUR, fontsize=SMALL_SIZE)
        share.tick_params(length=0, labelsize=SMALL_SIZE, colors=DIM_COLOUR)
        share.spines["top"].set_visible(False)


def _list_front(axes: Axes, points: CostPoints, rows: list[tuple[str, Subset, str]], height: float) -> None:
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(height - 0.4, 0)  # inches
    axes.text(1, _ROW * 0.5, points.source.metric.title, ha="right", va="center_baseline", fontsize=SMALL_SIZE, color=DIM_COLOUR)
    axes.text(0.09, _ROW * 0.5, "tuned", va="center_baseline", fontsize=SMALL_SIZE, color=DIM_COLOUR)
    for index, (number, subset, words) in enumerate(rows):
        y = _ROW * (index + 1.5)
        style: dict[str, Any] = {
            "va": "center_baseline",
            "fontsize": SMALL_SIZE,
            "color": CHOSEN if subset == points.chosen else INK_COLOUR,
        }
        axes.text(0.06, y, number, ha="right", weight="bold", **style)
        axes.text(0.09, y, drawable(words), **style)
        axes.text(1, y, points.source.metric.words(points.scores[subset].mean), ha="right", **style)
