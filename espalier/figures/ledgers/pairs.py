"""Draws the accuracies of pairs of blocks as a triangle of cells."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from espalier.figures.drawing import LABEL_SIZE, POINTS, SMALL_SIZE, clean, make_figure
from espalier.figures.ledgers.facts import pair_facts
from espalier.figures.ledgers.source import Source
from espalier.figures.ledgers.style import CHOSEN
from espalier.figures.ledgers.words import score_words
from espalier.figures.style import DIM_COLOUR, INK_COLOUR, WORSE
from espalier.figures.text import drawable
from tuning.kinds.metric import Metric
from tuning.search.score import Score, Subset

_CELL = 0.44  # inches
_LEAST, _MOST = 3.6, 9.0  # inches of a side
_MOST_NUMBERS = 16  # blocks; of more, cells are too small for numbers


def draw_pairs(source: Source) -> Figure:
    """Return the heat map: on the diagonal blocks that are tuned alone, below it pairs."""
    blocks, scores = pair_facts(source)
    best = max((subset for subset in scores if subset), key=lambda subset: scores[subset].worth)
    side = min(max(_CELL * len(blocks), _LEAST), _MOST)
    names = 0.085 * max(map(len, blocks))
    figure = make_figure(
        side + names + 0.5, side + names + 0.3, f"Pairs of blocks: {source.about}", _details(source, scores, best)
    )
    axes = figure.subplots()
    grid = _grid(blocks, scores)
    image = axes.imshow(
        grid, cmap="cividis_r" if source.metric.less_is_better else "cividis", norm=Normalize(*_limits(grid)), aspect="equal"
    )
    clean(axes)
    axes.tick_params(labelsize=min(LABEL_SIZE, 0.75 * POINTS * side / len(blocks)))
    axes.set_xticks(range(len(blocks)), [drawable(name) for name in blocks], rotation=90)
    axes.set_yticks(range(len(blocks)), [drawable(name) for name in blocks])
    _mark_cells(axes, grid, image, ("{:.1f}" if source.metric.unit == "%" else "{:.3g}").format)
    row, column = blocks.index(best[-1]), blocks.index(best[0])
    axes.add_patch(
        Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=CHOSEN, linewidth=2.4, clip_on=False, zorder=3)
    )
    _draw_scale(axes, image, source.metric, scores.get(()))
    return figure


def _details(source: Source, scores: dict[Subset, Score], best: Subset) -> list[str]:
    words = " + ".join(best)
    return [
        f"{source.metric.opening} when two blocks and the head are tuned (diagonal: one block); mean over {source.folds}.",
        f"Best (framed): {words}, {score_words(scores[best])}.",
    ]


def _grid(blocks: Subset, scores: dict[Subset, Score]) -> NDArray[np.float64]:
    """Return scores as they are shown, float64 (blocks, blocks), NaN above the diagonal and where nothing was evaluated."""
    grid = np.full((len(blocks), len(blocks)), np.nan)
    for subset, score in scores.items():
        if subset:
            grid[blocks.index(subset[-1]), blocks.index(subset[0])] = score.metric.scaled(score.mean)
    return grid


def _limits(grid: NDArray[np.float64]) -> tuple[float, float]:
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _mark_cells(axes: Axes, grid: NDArray[np.float64], image: AxesImage, numbers: Callable[[float], str]) -> None:
    """Separate the cells, frame the diagonal, write numbers if there is room, and cross out what was not evaluated."""
    for column, row in combinations_with_replacement(range(len(grid)), 2):
        value = grid[row, column]
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="white", linewidth=1.2))
        if row == column:
            axes.add_patch(Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=INK_COLOUR, linewidth=0.9))
        if np.isnan(value):
            axes.text(column, row, "\N{MIDDLE DOT}", ha="center", va="center", color=WORSE)
        elif len(grid) <= _MOST_NUMBERS:
            red, green, blue, _ = image.cmap(image.norm(value))
            ink = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else INK_COLOUR
            axes.text(column, row, numbers(value), ha="center", va="center_baseline", fontsize=SMALL_SIZE, color=ink)


def _draw_scale(axes: Axes, image: AxesImage, metric: Metric, probe: Score | None) -> None:
    """Put the colour scale into the empty corner; a line says where the head alone is."""
    scale = axes.inset_axes((0.6, 0.93, 0.38, 0.03))
    bar = axes.figure.colorbar(image, cax=scale, orientation="horizontal")
    bar.outline.set_visible(False)
    scale.tick_params(length=0, labelsize=SMALL_SIZE, colors=INK_COLOUR)
    scale.locator_params(nbins=4)
    words = metric.axis if probe is None else f"{metric.axis}; head alone: {metric.text(probe.mean)}"
    scale.set_title(words, fontsize=LABEL_SIZE - 1, color=DIM_COLOUR, loc="right")
