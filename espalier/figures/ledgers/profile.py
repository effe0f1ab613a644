"""Draws finetuning profiles: what each block is good for, tuned alone; several tasks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from contract.units import short_count
from espalier.figures.drawing import LABEL_SIZE, SMALL_SIZE, clean, make_figure
from espalier.figures.ledgers.facts import Profile
from espalier.figures.ledgers.style import MAIN, PALE, round_numbers
from espalier.figures.ledgers.words import score_words
from espalier.figures.style import DIM_COLOUR, INK_COLOUR, WORSE
from espalier.figures.text import drawable, shorten

_ROW = 0.27  # inches
_NAME_CHARACTERS = 30
_WIDE, _NARROW, _SLIM = 4.6, 2.8, 1.05


def draw_profiles(profiles: Sequence[Profile]) -> Figure:
    """Return horizontal bars from the linear probe's accuracy to each block's, with parameters and MACs of the blocks beside them."""
    first = profiles[0]
    alone = len(profiles) == 1
    panel = _WIDE if alone else _NARROW
    names = [block.name for block in first.blocks]
    width = 0.6 + 0.075 * max(map(len, names)) + panel * len(profiles) + 2 * _SLIM
    figure = make_figure(width, _ROW * len(names) + 0.95, _title(profiles), _details(profiles))
    grid = figure.subplots(1, len(profiles) + 2, sharey=True, squeeze=False, width_ratios=[panel] * len(profiles) + [_SLIM] * 2)
    axes = list(grid[0])
    for here, profile in zip(axes, profiles, strict=False):
        _draw_panel(here, profile, alone)
    _draw_counts(axes[-2], "parameters", [block.parameters for block in first.blocks])
    _draw_counts(axes[-1], "MACs per image", [block.macs for block in first.blocks])
    axes[0].set_yticks(range(len(names)), [drawable(name) for name in names])
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    return figure


def _title(profiles: Sequence[Profile]) -> str:
    first = profiles[0].source
    if len(profiles) == 1:
        return f"Finetuning profile of {first.about}"
    backbones = {profile.source.contents.header.backbone for profile in profiles}
    shared = first.backbone if len(backbones) == 1 else "several backbones"
    return f"Finetuning profiles of {shared}"


def _details(profiles: Sequence[Profile]) -> list[str]:
    over = " or ".join(dict.fromkeys(profile.source.folds for profile in profiles))
    metrics = list(dict.fromkeys(profile.source.metric.opening for profile in profiles))
    what = metrics[0] if len(metrics) == 1 else "What is reached"
    details = [f"{what} when one block and the head are tuned, against the head alone (line)."]
    spread = f"Mean and standard deviation over {over}."
    if len(profiles) == 1:
        profile = profiles[0]
        spread += f" Best: {profile.best}, {score_words(profile.scores[profile.best])}."
    details.append(spread)
    if any(not score.complete for profile in profiles for score in profile.scores.values()):
        details.append("Hatched: given up in a race before all folds were run.")
    return details


def _draw_panel(axes: Axes, profile: Profile, alone: bool) -> None:
    metric = profile.source.metric
    probe, places = metric.scaled(profile.probe.mean), {block.name: y for y, block in enumerate(profile.blocks)}
    deviation = metric.scaled(profile.probe.deviation)
    clean(axes, grid="x")
    axes.axvspan(probe - deviation, probe + deviation, color=WORSE, alpha=0.45, linewidth=0)
    for name, score in profile.scores.items():
        mean = metric.scaled(score.mean)
        colour = MAIN if name == profile.best else PALE if score.worth >= profile.probe.worth else WORSE
        look: dict[str, Any] = (
            {"color": colour} if score.complete else {"facecolor": "white", "edgecolor": colour, "hatch": "/////"}
        )
        axes.barh(places[name], mean - probe, left=probe, height=0.66, **look)
        axes.errorbar(
            mean, places[name], xerr=metric.scaled(score.deviation), color=INK_COLOUR, linewidth=0.9, capsize=2, capthick=0.9
        )
    axes.axvline(probe, color=INK_COLOUR, linewidth=1.1)
    low, high = _limits(profile)
    axes.set_xlim(low, high)
    round_numbers(axes.xaxis, 6 if alone else 4)
    _write_values(axes, profile, places, alone)
    for name in places.keys() - profile.scores.keys():
        axes.annotate("not tried", (probe, places[name]), **_beside(6), color=DIM_COLOUR, style="italic")
    _write_heading(axes, profile, (probe - low) / (high - low), alone)
    axes.set_xlabel(metric.axis)


def _limits(profile: Profile) -> tuple[float, float]:
    """Return the ends of the axis: room for bars and deviations, and on the right for a number."""
    scores, scaled = [profile.probe, *profile.scores.values()], profile.source.metric.scaled
    low = min(scaled(score.mean - score.deviation) for score in scores)
    high = max(scaled(score.mean + score.deviation) for score in scores)
    span = max(high - low, scaled(profile.source.metric.epsilon))
    return low - 0.06 * span, high + 0.16 * span


def _write_values(axes: Axes, profile: Profile, places: dict[str, int], alone: bool) -> None:
    metric = profile.source.metric
    probe_end = metric.scaled(profile.probe.mean + profile.probe.deviation)
    for name, score in profile.scores.items():
        if alone or name == profile.best:
            end = max(metric.scaled(score.mean + score.deviation), probe_end)
            axes.annotate(
                metric.text(score.mean),
                (end, places[name]),
                **_beside(4),
                color=INK_COLOUR if name == profile.best else DIM_COLOUR,
                weight="bold" if name == profile.best else "normal",
            )


def _write_heading(axes: Axes, profile: Profile, share: float, alone: bool) -> None:
    """Name the reference line above it and, of several panels, the task."""
    side = "left" if share < 0.3 else "right" if share > 0.7 else "center"
    axes.annotate(
        f"head alone {profile.source.metric.text(profile.probe.mean)}",
        (share, 1),
        xytext=(0, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        ha=side,
        fontsize=SMALL_SIZE,
        color=DIM_COLOUR,
    )
    if not alone:
        name = shorten(profile.source.data, _NAME_CHARACTERS)
        axes.set_title(name, loc="left", fontsize=LABEL_SIZE + 1, weight="bold", pad=18)


def _draw_counts(axes: Axes, what: str, counts: Sequence[int]) -> None:
    clean(axes)
    axes.barh(np.arange(len(counts)), counts, height=0.66, color=WORSE)
    axes.set_xlim(0, 1.9 * max(max(counts), 1))
    axes.set_xticks([])
    axes.set_xlabel(what)
    for y, count in enumerate(counts):
        axes.annotate(
            short_count(count),
            (count, y),
            **_beside(3),
            color=DIM_COLOUR,
        )


def _beside(points: float) -> dict[str, Any]:
    """Return how a small text stands to the right of what it belongs to."""
    return {"xytext": (points, 0), "textcoords": "offset points", "va": "center_baseline", "fontsize": SMALL_SIZE}
