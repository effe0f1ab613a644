"""Pictures of what the tables say, as SVG; the same entries give the same bytes with the same matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.studies.claims.plan import CORRUPTION, IMAGES, MAIN_TASKS, SEVERITIES
from benchmarks.studies.claims.statistics import spread
from benchmarks.studies.claims.tables.profiles import profile
from benchmarks.studies.claims.tables.ranking import agreements
from benchmarks.studies.claims.tables.source import Source

_METHODS = ("linear probe", "subtuning", "full finetuning")


def make_plots(source: Source) -> Iterator[tuple[str, bytes]]:
    """Yield file names and pictures; what has no entries yet is left out."""
    for name, draw in (("profiles", _profiles), ("corruption", _corruption), ("ranking", _ranking)):
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        axes = figure.add_subplot()
        if draw(source, axes):
            axes.spines[["top", "right"]].set_visible(False)
            yield f"claims-{name}.svg", _render(figure)


def _profiles(source: Source, axes: Axes) -> bool:
    for task in MAIN_TASKS:
        found = {subset: values for subset, values in profile(source.searched(task, IMAGES)).items() if subset}
        if found:
            means, deviations = zip(*(spread([100 * value for value in values]) for values in found.values()), strict=True)
            axes.errorbar([subset[0] for subset in found], means, deviations, label=task, marker="o", capsize=2)
    axes.set(xlabel="the block that is tuned", ylabel="accuracy by cross-validation, %")
    axes.tick_params("x", rotation=60)
    return _legend(axes)


def _corruption(source: Source, axes: Axes) -> bool:
    for method in _METHODS:
        tasks = {severity: f"category {CORRUPTION}:{severity}" if severity else "category" for severity in (0, *SEVERITIES)}
        found = {severity: list(source.tested(task, method, IMAGES).values()) for severity, task in tasks.items()}
        known = {severity: spread([100 * value for value in values]) for severity, values in found.items() if values}
        if known:
            axes.errorbar(
                list(known), [m for m, _ in known.values()], [d for _, d in known.values()], label=method, marker="o", capsize=2
            )
    axes.set(xlabel=f"severity of {CORRUPTION}", ylabel="accuracy on test pictures, %")
    return _legend(axes)


def _ranking(source: Source, axes: Axes) -> bool:
    searches = [one for one in source.searches if one.unit.blocks > 1]
    found = list(agreements(searches, source.settings.gain))
    for name in dict.fromkeys(one.ranking.rank for one in found):
        mine = [one for one in found if one.ranking.rank == name]
        axes.scatter([one.macs for one in mine], [100 * one.first for one in mine], label=name, s=24)
    axes.axhline(90, color="#5f6b7a", linewidth=0.8)
    axes.axvline(5, color="#5f6b7a", linewidth=0.8)
    axes.set(xlabel="times fewer MACs than the exhaustive search", ylabel="same first block, %")
    return _legend(axes)


def _legend(axes: Axes) -> bool:
    drawn = bool(axes.get_legend_handles_labels()[1])
    if drawn:
        axes.legend(frameon=False, fontsize="small")
    return drawn


def _render(figure: Figure) -> bytes:
    file = BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "espalier"}):
        FigureCanvasSVG(figure).print_figure(file, format="svg", metadata={"Creator": "espalier", "Date": None})
    return file.getvalue()
