"""The timeline of benchmarks/deploy/timeline.py as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.deploy.results import Timeline

_WINDOW_S = 5.0
_POINT, _LINE, _SHADE, _GOAL = "#a6cbe3", "#0077bb", "#f3eee0", "#cc3311"


def write_plot(timeline: Timeline, path: Path) -> None:
    """Write every request's latency over time to `path` (.svg or .png), with the p99 of windows of 5 s, the deploys shaded."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    due = np.array([request.due_s for request in timeline.requests])
    latency = np.array([request.latency_ms for request in timeline.requests])
    rounds = [found for found in timeline.rounds if found.deploys]
    for place, found in enumerate(rounds):
        label = f"{len(rounds)} deploys of {timeline.options.task}" if place == 0 else None
        axes.axvspan(found.start_s, found.end_s, color=_SHADE, linewidth=0, label=label)
    axes.plot(due, latency, ".", color=_POINT, markersize=2, rasterized=True, label="a request of another task")
    axes.plot(*_windows(due, latency), color=_LINE, label=f"99th percentile of {_WINDOW_S:g} s")
    quiet = timeline.quiet_ms()
    if quiet:
        axes.axhline(
            float(np.percentile(quiet, 99)), color=_GOAL, linewidth=1, linestyle="--", label="the same, when it is quiet"
        )
    axes.set(xlabel="seconds", ylabel="latency in ms", xlim=(0, float(due.max())), ylim=(0, None))
    axes.set_title(f"Latency at {timeline.rate:.1f} requests/s while a task comes and goes", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


def _windows(due: np.ndarray, latency: np.ndarray) -> tuple[list[float], list[float]]:
    """Return the middles of the windows that have requests, and the 99th percentiles of their latencies."""
    numbers = (due // _WINDOW_S).astype(int)
    present = sorted(set(numbers.tolist()))
    return [(number + 0.5) * _WINDOW_S for number in present], [float(np.percentile(latency[numbers == n], 99)) for n in present]


def write_first_answers(ways: Sequence[tuple[str, Sequence[float]]], goals_ms: Mapping[str, float], path: Path) -> None:
    """Write the milliseconds to each first answer to `path` (.svg or .png), a row per way, its median and its goal marked."""
    figure = Figure(figsize=(8, 1 + 0.6 * len(ways)), layout="constrained")
    axes = figure.add_subplot()
    for row, (way, values) in enumerate(ways):
        axes.plot(values, [row] * len(values), "o", color=_LINE, alpha=0.3, markersize=5, linewidth=0)
        axes.plot([float(np.median(values))] * 2, [row - 0.3, row + 0.3], color=_LINE)
        if way in goals_ms:
            axes.plot([goals_ms[way]] * 2, [row - 0.3, row + 0.3], color=_GOAL, linestyle="--", linewidth=1)
    axes.set(
        xscale="log",
        xlabel="ms from the call to the first answer (log); line: median, dashes: goal",
        ylim=(len(ways) - 0.5, -0.5),
    )
    axes.set_yticks(range(len(ways)), [way for way, _ in ways])
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
