"""Writes figures as files: the tree of a repository, and charts of ledgers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from contract.repository import Repository
from espalier.figures.errors import PlotNotWritten, UnknownPlotFormat
from espalier.figures.ledgers.kinds import Kind
from espalier.figures.ledgers.source import open_source
from espalier.figures.repository.layout import make_layout
from espalier.figures.repository.svg import to_svg
from espalier.figures.repository.text import MACS

_FORMATS = ("svg", "png")


def check_plot_file(path: Path) -> None:
    """Raise UnknownPlotFormat unless the name ends in .svg or .png, and PlotNotWritten if there is no such folder."""
    if _kind(path) not in _FORMATS:
        raise UnknownPlotFormat(path)
    if not path.parent.is_dir():
        raise PlotNotWritten(path, f"{path.parent} is not a folder")


def write_plot(repository: Repository, path: Path, unit: str = MACS) -> None:
    """Write the tree of `repository` to `path`, in which width is MACs or, if `unit` is WEIGHTS, bytes of weights.

    The same repository gives the same bytes, of a PNG with the same matplotlib. Raises UnknownPlotFormat, PlotNotWritten, and for a PNG
    ModuleNotFoundError without matplotlib (the extra `plot`).
    """
    check_plot_file(path)
    layout = make_layout(repository, unit)
    if _kind(path) == "svg":
        _write(path, to_svg(layout).encode())
        return
    from espalier.figures.repository.draw import to_png

    _write(path, to_png(layout))


def write_chart(ledgers: Sequence[Path], path: Path, kind: Kind = Kind.auto) -> None:
    """Draw what `ledgers` hold to `path`, a .svg or .png file.

    The same ledgers give the same bytes with the same matplotlib. Raises UnknownPlotFormat, PlotNotWritten, BadLedger, what `render`
    raises, and ModuleNotFoundError without matplotlib (the extra `plot`).
    """
    check_plot_file(path)
    sources = [open_source(ledger) for ledger in ledgers]
    from espalier.figures.ledgers.draw import render

    _write(path, render(sources, kind, _kind(path)))


def _write(path: Path, picture: bytes) -> None:
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise PlotNotWritten(path, error.strerror or str(error)) from error


def _kind(path: Path) -> str:
    return path.suffix.lower().removeprefix(".")
