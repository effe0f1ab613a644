"""Writes charts as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from espalier.figures.ledgers.kinds import Kind
from espalier.figures.ledgers.source import open_source
from espalier.figures.repository.errors import PlotNotWritten
from espalier.figures.repository.files import check_plot_file


def write_chart(ledgers: Sequence[Path], path: Path, kind: Kind = Kind.auto) -> None:
    """Draw what `ledgers` hold to `path`, a .svg or .png file.

    The same ledgers give the same bytes with the same matplotlib. Raises UnknownPlotFormat, PlotNotWritten, BadLedger, what `render`
    raises, and ModuleNotFoundError without matplotlib (the extra `plot`).
    """
    check_plot_file(path)
    sources = [open_source(ledger) for ledger in ledgers]
    from espalier.figures.ledgers.draw import render

    picture = render(sources, kind, path.suffix.lower().removeprefix("."))
    try:
        path.write_bytes(picture)
    except OSError as error:
        raise PlotNotWritten(path, error.strerror or str(error)) from error
