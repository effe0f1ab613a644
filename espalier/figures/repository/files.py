"""Writes the picture of a repository as a file."""

from __future__ import annotations

from pathlib import Path

from contract.repository import Repository
from espalier.figures.repository.errors import PlotNotWritten, UnknownPlotFormat
from espalier.figures.repository.layout import make_layout
from espalier.figures.repository.text import MACS

FORMATS = ("svg", "png")


def check_plot_file(path: Path) -> None:
    """Raise UnknownPlotFormat unless the name ends in .svg or .png, and PlotNotWritten if there is no such folder."""
    if _kind(path) not in FORMATS:
        raise UnknownPlotFormat(path)
    if not path.parent.is_dir():
        raise PlotNotWritten(path, f"{path.parent} is not a folder")


def write_plot(repository: Repository, path: Path, unit: str = MACS) -> None:
    """Write the tree of `repository` to `path`, in which width is MACs or, if `unit` is WEIGHTS, bytes of weights.

    The same repository gives the same bytes with the same matplotlib. Raises UnknownPlotFormat, PlotNotWritten, and
    ModuleNotFoundError without matplotlib (the extra `plot`).
    """
    from espalier.figures.repository.draw import render

    check_plot_file(path)
    picture = render(make_layout(repository, unit), _kind(path))
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise PlotNotWritten(path, error.strerror or str(error)) from error


def _kind(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
