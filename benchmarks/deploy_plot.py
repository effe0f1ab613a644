"""The timeline of benchmarks/deploy_timeline.py as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.deploy_results import Timeline

_WINDOW_S = 5.0
_POINT, _LINE, _SHADE = "#a6cbe3", "#0077bb", "#f3eee0"


def write_plot(timeline: Timeline, path: Path) -> None:
    """Write every request's latency over time to `path` (.svg or .png), with the p99 of windows of 5 s, the deploys shaded."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    begin, end = timeline.deploys
    due = np.array([request.due_s for request in timeline.requests])
    latency = np.array([request.latency_ms for request in timeline.requests])
    axes.axvspan(begin, end, color=_SHADE, label=f"{timeline.options.deploys} deploys of {timeline.options.task}")
    axes.plot(due, latency, ".", color=_POINT, markersize=2, rasterized=True, label="a request of another task")
    axes.plot(*_windows(due, latency), color=_LINE, label=f"99th percentile of {_WINDOW_S:g} s")
    quiet = timeline.quiet_ms()
    if quiet:
        axes.axhline(
            float(np.percentile(quiet, 99)), color="#cc3311", linewidth=1, linestyle="--", label="the same, when it is quiet"
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
