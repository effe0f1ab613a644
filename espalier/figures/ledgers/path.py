"""Draws the way of a greedy selection."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from espalier.figures.drawing import SMALL_SIZE, clean, make_figure
from espalier.figures.ledgers.facts import GreedyPath, path_facts
from espalier.figures.ledgers.source import Source
from espalier.figures.ledgers.style import CHOSEN, MAIN, apart, round_numbers
from espalier.figures.ledgers.words import score_words, subset_words
from espalier.figures.style import DIM_COLOUR, WORSE
from espalier.figures.text import drawable
from tuning.search.greedy import GreedyStep

_HEIGHT = 3.9  # inches
_STEP = 0.42
_NARROWEST, _WIDEST = 6.0, 9.5
_MOST_WIDTH = 20.0
_CHARACTER = 0.08
_MOST_NAMES = 6  # of what a step chose from
_NAME_GAP = 0.14  # inches
_UPRIGHT = 45  # degrees, where names do not fit side by side


def draw_path(source: Source) -> Figure:
    """Return accuracy, or value where costs weigh, against the number of blocks: the way taken, and all that was looked at."""
    path = path_facts(source)
    steps = path.selection.steps
    sizes = [len(step.subset) for step in steps] + [candidate.size for candidate in path.candidates]
    low, high = min(sizes), max(sizes)
    labels = {len(step.subset): _step_words(step, path.selection.direction) for step in steps}
    longest = max(map(len, [*labels.values(), *(candidate.block for candidate in path.candidates)]))
    flat = 1.2 + (_CHARACTER * longest + 0.1) * (high - low + 1)
    turned = flat > _WIDEST
    width = max(_NARROWEST, min(_MOST_WIDTH, 1.2 + _STEP * (high - low + 1)) if turned else flat)
    names = _CHARACTER * longest * 0.72 if turned else 0.15
    direction = path.selection.direction.capitalize()
    figure = make_figure(width, _HEIGHT + names, f"{direction} selection: {source.about}", _details(path))
    axes = figure.subplots()
    clean(axes, grid="y", keep=("bottom",))
    _draw_candidates(axes, path)
    _draw_steps(axes, path)
    if not turned:
        _name_candidates(axes, path)
    round_numbers(axes.yaxis, 10)
    axes.set_xlim(low - 0.5, high + (0.5 if turned else 0.9))
    ticks = range(low, high + 1)
    axes.set_xticks(ticks, [_tick(size, labels.get(size, ""), turned) for size in ticks])
    if turned:
        for label in axes.get_xticklabels():
            label.set(rotation=_UPRIGHT, ha="right", rotation_mode="anchor")
    axes.set_xlabel("number of tuned blocks, and the step that led there")
    axes.set_ylabel(_value_words(path))
    return figure


def _step_words(step: GreedyStep, direction: str) -> str:
    if step.block is None:
        return "all blocks" if step.subset else "head alone"
    return f"{'+' if direction == 'forward' else chr(0x2212)} {drawable(step.block)}"


def _tick(size: int, words: str, turned: bool) -> str:
    return f"{words}   {size}" if turned else f"{size}\n{words}"


def _details(path: GreedyPath) -> list[str]:
    selection, source = path.selection, path.source
    chosen = subset_words(selection.chosen.subset, [block.name for block in source.contents.header.blocks], 6)
    details = [
        f"Chosen (ring): {chosen}, {score_words(selection.chosen.score)}.",
        f"Stopped: {selection.why}.",
        f"Bars: standard deviation over {source.folds}. Dots: what each step chose from" + _hollow(path) + ".",
    ]
    meaning = "least gain of a block" if path.rule.meaning == "gain" else "tolerated drop from the best"
    epsilon = f"{path.metric.scaled(path.rule.epsilon):g} {path.metric.unit}".rstrip()
    limits = (
        [f"epsilon {epsilon} ({meaning})"]
        + [f"at most {path.rule.max_blocks} blocks"] * (path.rule.max_blocks is not None)
        + _objective_words(path)
    )
    origin = "Rule" if path.noted else "Replayed by the default rule"
    return [*details, f"{origin}: {', '.join(limits)}."]


def _hollow(path: GreedyPath) -> str:
    return "" if all(candidate.complete for candidate in path.candidates) else " (hollow: given up before all folds were run)"


def _objective_words(path: GreedyPath) -> list[str]:
    weighed = path.objective
    words = [f"MACs weigh {weighed.macs_weight:g}"] * bool(weighed.macs_weight)
    words += [f"bytes weigh {weighed.bytes_weight:g}"] * bool(weighed.bytes_weight)
    if weighed.latency_budget_ms is not None:
        words.append(f"at most {weighed.latency_budget_ms:g} ms")
    return words


def _height(path: GreedyPath, value: float) -> float:
    """Return where a value stands: as a number of the metric, which may be less where it is better."""
    return path.metric.scaled(path.metric.worth(value))


def _value_words(path: GreedyPath) -> str:
    if not path.objective.needs_cost:
        return path.metric.axis
    sign = "plus" if path.metric.less_is_better else "less"
    return path.metric.axis.replace(path.metric.title, f"{path.metric.title} {sign} the weighed costs", 1)


def _name_candidates(axes: Axes, path: GreedyPath) -> None:
    """Write beside the best dots of each step which block they add or remove."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    for size in {candidate.size for candidate in path.candidates}:
        shown = sorted((c for c in path.candidates if c.size == size), key=lambda c: -c.value)[:_MOST_NAMES]
        heights = apart([_height(path, candidate.value) for candidate in shown], _NAME_GAP * (high - low) / _HEIGHT)
        for candidate, height in zip(shown, heights, strict=True):
            place = (size + 0.07, height)
            axes.annotate(drawable(candidate.block), place, va="center_baseline", fontsize=SMALL_SIZE - 1, color=DIM_COLOUR)


def _draw_candidates(axes: Axes, path: GreedyPath) -> None:
    for complete, face in ((True, WORSE), (False, "white")):
        shown = [candidate for candidate in path.candidates if candidate.complete == complete]
        axes.plot(
            [candidate.size for candidate in shown],
            [_height(path, candidate.value) for candidate in shown],
            linestyle="none",
            marker="o",
            markersize=4.5,
            markerfacecolor=face,
            markeredgecolor="#b3bac3",
            markeredgewidth=0.7,
        )


def _draw_steps(axes: Axes, path: GreedyPath) -> None:
    steps, chosen = path.selection.steps, path.selection.chosen
    sizes, values = [len(step.subset) for step in steps], [_height(path, step.value) for step in steps]
    deviations = [path.metric.scaled(step.score.deviation) for step in steps]
    axes.errorbar(sizes, values, yerr=deviations, color=MAIN, linewidth=1.8, marker="o", markersize=6, elinewidth=1, capsize=3)
    axes.plot(
        [len(chosen.subset)],
        [_height(path, chosen.value)],
        marker="o",
        markersize=14,
        markerfacecolor="none",
        markeredgecolor=CHOSEN,
        markeredgewidth=2,
    )
