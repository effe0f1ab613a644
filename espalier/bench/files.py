"""Keeps results in a folder: JSON and tables for each benchmark, its plots, and the page of all that is there."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.framework.errors import ResultNotWritten
from benchmarks.framework.record import Record, read_record
from benchmarks.framework.result import Plot
from benchmarks.registry import BENCHMARKS
from espalier.bench.tables import markdown

REPORT = "report.html"


def can_draw() -> bool:
    """Whether matplotlib, the extra `plot`, is installed."""
    return find_spec("matplotlib") is not None


def prepare(folder: Path) -> None:
    """Make the folder and write to it, before anything is measured.

    Raises ResultNotWritten; NotARecord for a result of another version in it.
    """
    _writing(folder, lambda: _try(folder))
    read_records(folder)


def _try(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder):
        pass


def read_records(folder: Path) -> list[Record]:
    """Return the results in `folder`, in the order of `espalier bench list`. Raises NotARecord for another JSON file."""
    names = [benchmark.name for benchmark in BENCHMARKS]
    files = sorted(
        folder.glob("*.json"), key=lambda file: (names.index(file.stem) if file.stem in names else len(names), file.stem)
    )
    return [read_record(file) for file in files]


def write_record(record: Record, folder: Path) -> None:
    """Write JSON, tables and plots of `record` into `folder`, and the page of all results there. Raises ResultNotWritten."""
    _writing(folder, lambda: _write(record, folder))


def tables_file(record: Record, folder: Path) -> Path:
    """Return where the tables of `record` are, in Markdown."""
    return folder / f"{record.benchmark}.md"


def _write(record: Record, folder: Path) -> None:
    (folder / f"{record.benchmark}.json").write_text(record.to_json(), encoding="utf-8")
    notes = "\n\n".join((record.result.headline, *record.result.notes))
    text = f"## {record.benchmark}\n\n{notes}\n\n{markdown(record.result.tables)}"
    tables_file(record, folder).write_text(text, encoding="utf-8")
    if can_draw():
        _draw(record.result.plots, folder)
        _write_report(folder)


def _draw(plots: Sequence[Plot], folder: Path) -> None:
    from espalier.bench.plots import render

    for plot in plots:
        for file_format in ("svg", "png"):
            (folder / f"{plot.name}.{file_format}").write_bytes(render(plot, file_format))


def _write_report(folder: Path) -> None:
    from espalier.bench.report import make_report

    records = read_records(folder)
    files = {plot.name: folder / f"{plot.name}.svg" for record in records for plot in record.result.plots}
    svgs = {name: file.read_bytes() for name, file in files.items() if file.exists()}
    (folder / REPORT).write_text(make_report(records, svgs), encoding="utf-8")


def _writing(folder: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        raise ResultNotWritten(folder, error.strerror or str(error)) from error
