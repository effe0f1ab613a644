"""How plots, terminal and page show what benchmarks have found."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.framework.record import Record
from benchmarks.framework.result import Column, Plot, Result, Series, Style, Table, Unit
from espalier.bench.plots import render
from espalier.bench.report import make_report
from espalier.bench.tables import MISSING, show_table
from tests.espalier.bench.test_bench import SVG, TABLE, Page

pytestmark = pytest.mark.slow  # they draw


def strokes(*series: Series) -> list[str]:
    """The colours of what is drawn in a plot of `series`: lines, then outlines of marks."""
    svg = render(Plot("p", "P", "", "x", "y", series), "svg").decode()
    return re.findall(r"(?:stroke|fill): (#[0-9a-f]{6})", svg)


def test_what_belongs_to_a_line_has_its_colour_and_others_do_not() -> None:
    first, second = "#4477aa", "#ee6677"
    line = Series("a", (1, 2), (1, 2))
    beside = Series("b", (1, 2), (2, 2), style=Style.dotted)
    assert first in strokes(line, beside)
    assert second not in strokes(line, beside)
    assert second in strokes(line, replace(beside, style=Style.line))
    marks = replace(line, style=Style.marks)
    assert {first, second} <= set(strokes(marks, replace(marks, name="c")))


@pytest.mark.parametrize(("xs", "shown"), [((1, 4, 9), {"1", "4", "9"}), ((4.621, 6.648, 8.468), set[str]())])
def test_counts_are_ticks_and_other_numbers_are_not(xs: tuple[float, ...], shown: set[str]) -> None:
    root = ElementTree.fromstring(render(Plot("p", "P", "", "x", "y", (Series("a", xs, (1, 2, 3)),)), "svg"))
    words = {"".join(element.itertext()) for element in root.iter(f"{SVG}text")}
    assert shown <= words
    assert not words & {"4.621", "6.648", "8.468"}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 14), st.integers(20, 120))
def test_a_table_in_the_terminal_never_loses_a_number(columns: int, width: int) -> None:
    numbers = [1234.5 + place for place in range(columns)]
    table = Table(
        "Wide",
        (Column("name", "name"), *(Column(f"c{place}", f"a long heading {place}", Unit.ms) for place in range(columns))),
        ({"name": "vit_small_patch16_224", **{f"c{place}": number for place, number in enumerate(numbers)}},),
    )
    file = io.StringIO()
    show_table(table, Console(file=file, width=width))
    assert all(f"{number:.1f}" in file.getvalue() for number in numbers)


def test_times_in_the_terminal_are_medians_alone() -> None:
    file = io.StringIO()
    show_table(TABLE, Console(file=file, width=100))
    assert "12.3" in file.getvalue()
    assert "11.0" not in file.getvalue()


def busy(load: float, *others: str) -> bool:
    """Whether the page says that the machine was busy when a benchmark of 60 s began at noon, beside `others` of the same length."""
    at_noon = make_record("2026-01-01T12:00:00+00:00", load)
    text = make_report([at_noon, *(make_record(time, 0.0) for time in others)], {})
    return "The machine was busy" in Page(text).words


def make_record(time: str, load: float) -> Record:
    machine = {
        "processor": "P",
        "vector_instructions": [],
        "cores": 2,
        "machine_cores": 2,
        "memory_bytes": 1,
        "system": "S",
        "python": "3",
    }
    options = {"scale": "full", "threads": 2, "precision": "fp32"}
    return Record("toy", "A toy.", options, machine, {}, "", time, 60.0, (load, 0.0), Result("All is well.", (TABLE,)))


def test_a_busy_machine_is_told_from_the_load_that_the_benchmark_before_has_left() -> None:
    assert busy(1.5)
    assert not busy(0.9)
    assert not busy(1.5, "2026-01-01T11:58:50+00:00")  # ended 10 s before
    assert busy(1.5, "2026-01-01T11:50:00+00:00")  # 9 minutes before
    assert busy(1.5, "2026-01-01T12:01:10+00:00")  # came after it


def test_long_tables_are_folded_away_but_the_main_one_is_not() -> None:
    long = replace(TABLE, title="Long", rows=TABLE.rows * 10)
    for tables, folded in (((long,), 0), ((TABLE, long), 1)):
        record = replace(make_record("2026-01-01T12:00:00+00:00", 0.0), result=Result("Well.", tables))
        assert make_report([record], {}).count("<summary>Long") == folded


def test_quartiles_can_go_below_their_median() -> None:
    page = make_report([make_record("2026-01-01T12:00:00+00:00", 0.0)], {})
    assert f'<td class="right time"><span>12.3</span> <small>(11.0{MISSING}15.0)</small></td>' in page
