"""Draws a comparison of methods on the test split: accuracy against the number of training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import exp, log

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from espalier.figures.drawing import LABEL_SIZE, SMALL_SIZE, clean, make_figure
from espalier.figures.ledgers.facts import Line, line_facts
from espalier.figures.ledgers.source import Source
from espalier.figures.ledgers.style import Look, apart, looks, round_numbers
from espalier.figures.ledgers.words import DEVIATION
from espalier.figures.style import DIM_COLOUR
from espalier.figures.text import drawable
from tuning.kinds.metric import Metric

_WIDTH, _HEIGHT = 5.4, 4.0  # inches, of what is drawn into
_ROW = 0.34
_DODGE = 0.012  # of the axis' length between the error bars of neighbouring lines, at most
_DIGIT = 0.075  # inches
_LINE_GAP = 0.175  # inches between names at the lines' ends


def draw_methods(source: Source) -> Figure:
    """Return a line for each method, or rows of dots if all of them had the same number of training images."""
    lines = line_facts(source)
    counts = sorted({count for line in lines for count in line.accuracies})
    title = f"Methods compared: {source.about}"
    metric = source.metric
    return _draw_rows(title, lines, counts[0], metric) if len(counts) == 1 else _draw_lines(title, lines, counts, metric)


def _details(what: str, lines: Sequence[Line], metric: Metric) -> list[str]:
    seeds = {len(values) for line in lines for values in line.accuracies.values()}
    if seeds == {1}:
        return [f"{metric.opening} on the test split{what}.", "One training each."]
    over = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"{max(seeds)}"
    return [
        f"{metric.opening} on the test split{what}.",
        f"Mean and standard deviation over {over} seeds.",
    ]


def _draw_lines(title: str, lines: Sequence[Line], counts: Sequence[int], metric: Metric) -> Figure:
    names = 0.35 + 0.078 * max(len(line.name) for line in lines)
    height = max(_HEIGHT, _LINE_GAP * len(lines) + 0.9)
    figure = make_figure(_WIDTH + names + 0.8, height + 0.6, title, _details(" by number of training images", lines, metric))
    plot = figure.subplots()
    clean(plot, grid="y", keep=("bottom",))
    plot.set_xscale("log")
    look = looks([(line.method, line.name) for line in lines])
    bars = any(len(values) > 1 for line in lines for values in line.accuracies.values())
    narrowest = min(log(after / before) for before, after in pairwise(counts))
    span = log(counts[-1] / counts[0])
    step = min(_DODGE * span, narrowest / 2 / len(lines)) if bars else 0.0
    margin = max(0.06 * span, 0.6 * step * len(lines))  # room for the outermost bars
    low, high = counts[0] * exp(-margin), counts[-1] * exp(margin)
    plot.set_xlim(low, high)
    for index, line in enumerate(lines):
        _draw_line(plot, line, metric, look[line.name], exp(step * (index - (len(lines) - 1) / 2)), bars)
    plot.xaxis.set_major_locator(FixedLocator(_spaced(counts, low, high)))
    plot.xaxis.set_minor_locator(NullLocator())
    plot.xaxis.set_minor_formatter(NullFormatter())
    plot.xaxis.set_major_formatter(lambda value, _: f"{round(value):,}")
    plot.set_xlabel("training images (logarithmic)")
    plot.set_ylabel(metric.axis)
    bottom, top = plot.get_ylim()
    plot.set_ylim(bottom, top)
    _name_ends(plot, lines, metric, look, (top - bottom) * _LINE_GAP / (height - 0.2))
    return figure


def _draw_line(axes: Axes, line: Line, metric: Metric, look: Look, shift: float, bars: bool) -> None:
    counts = list(line.accuracies)
    axes.errorbar(
        [count * shift for count in counts],
        [metric.scaled(line.mean(count)) for count in counts],
        yerr=[metric.scaled(line.deviation(count)) for count in counts] if bars else None,
        color=look.colour,
        marker=look.marker,
        markersize=5.5,
        linewidth=1.6,
        elinewidth=0.9,
        capsize=2,
        label=line.name,
    )


def _name_ends(axes: Axes, lines: Sequence[Line], metric: Metric, look: Mapping[str, Look], gap: float) -> None:
    """Write the names beside the plot at the height of the lines' ends, moved apart where they would overlap."""
    ends = [metric.scaled(line.mean(max(line.accuracies))) for line in lines]
    beside = axes.get_yaxis_transform()
    for line, end, y in zip(lines, ends, apart(ends, gap), strict=True):
        style = look[line.name]
        axes.plot([0.985, 1.03], [end, y], color=style.colour, linewidth=0.8, alpha=0.6, clip_on=False, transform=beside)
        axes.plot([1.045], [y], color=style.colour, marker=style.marker, markersize=5, clip_on=False, transform=beside)
        axes.annotate(
            drawable(line.name),
            (1.045, y),
            xycoords=beside,
            xytext=(8, 0),
            textcoords="offset points",
            va="center_baseline",
            fontsize=LABEL_SIZE,
            color=style.colour,
            annotation_clip=False,
        )


def _spaced(counts: Sequence[int], low: float, high: float) -> list[int]:
    """Return the counts that can be written without overlap on a logarithmic axis; the last always is."""
    kept = [counts[-1]]
    for count in reversed(counts[:-1]):
        inches = _WIDTH * log(kept[-1] / count) / log(high / low)
        if inches > _DIGIT * (1 + len(f"{count:,}{kept[-1]:,}") / 2):
            kept.append(count)
    return kept[::-1]


def _draw_rows(title: str, lines: Sequence[Line], count: int, metric: Metric) -> Figure:
    ordered = sorted(lines, key=lambda line: metric.worth(line.mean(count)))
    names = 0.085 * max(len(line.name) for line in lines)
    details = _details(f" after training on {count:,} images", lines, metric)
    figure = make_figure(_WIDTH + names, _ROW * len(lines) + 0.7, title, details)
    axes = figure.subplots()
    clean(axes, grid="x")
    look = looks([(line.method, line.name) for line in lines])
    for y, line in enumerate(ordered):
        values, style = line.accuracies[count], look[line.name]
        if len(values) > 1:
            axes.plot([metric.scaled(value) for value in values], [y - 0.25] * len(values), "o", markersize=3.5, color="#b3bac3")
        deviation = metric.scaled(line.deviation(count))
        axes.errorbar(
            metric.scaled(line.mean(count)),
            y,
            xerr=deviation or None,
            color=style.colour,
            marker=style.marker,
            markersize=6.5,
            capsize=3,
        )
    round_numbers(axes.xaxis, 7)
    axes.set_yticks(range(len(ordered)), [drawable(line.name) for line in ordered])
    axes.set_ylim(-0.6, len(ordered) - 0.4)
    axes.set_xlabel(metric.axis)
    numbers = axes.secondary_yaxis("right")
    numbers.set_yticks(range(len(ordered)), [_number(line, count, metric) for line in ordered])
    numbers.tick_params(length=0, labelsize=SMALL_SIZE, colors=DIM_COLOUR)
    numbers.spines["right"].set_visible(False)
    return figure


def _number(line: Line, count: int, metric: Metric) -> str:
    if len(line.accuracies[count]) == 1:
        return metric.text(line.mean(count))
    return f"{metric.text(line.mean(count))} {DEVIATION} {metric.text(line.deviation(count))}"
