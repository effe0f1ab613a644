"""The answers of benchmarks/studies/many_tasks/measure.py as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.studies.many_tasks.results import ManyTasks, by_state

_COLOURS = {"new": "#cc3311", "known": "#ee7733", "closed": "#009988", "open": "#0077bb"}
_STYLES = ("-", "--", ":")  # by kind of task
_GOAL_MS = 100.0


def write_plot(found: ManyTasks, path: Path) -> None:
    """Write how many of the answers were there after how long, by kind of task and state of its segments, to `path` (.svg or .png)."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    groups = by_state([answer for server in found.servers for answer in server.answers])
    kinds = sorted({kind for kind, _ in groups})
    for (kind, state), values in sorted(groups.items()):
        share = np.arange(1, len(values) + 1) / len(values)
        style = _STYLES[kinds.index(kind) % len(_STYLES)]
        axes.step(
            np.sort(values),
            share,
            where="post",
            color=_COLOURS[state],
            linestyle=style,
            label=f"{kind}, {state} ({len(values):,})",
        )
    axes.axvline(_GOAL_MS, color="#999999", linewidth=1)
    axes.set(xscale="log", xlabel="ms from the request to the answer (log)", ylabel="share of the answers", ylim=(0, 1))
    axes.set_title(f"{found.tasks:,} tasks: an answer by what the server had open", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)
